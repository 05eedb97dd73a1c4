//! iperf3.

use anyhow::{Context, Result, ensure};

use super::tcp::run_json;
use super::{IPERF, Scene};

/// How much each run carries.
const OCTETS: &str = "40M";

pub(super) fn iperf(scene: &Scene<'_>) -> Result<String> {
    let mut figures = Vec::new();
    for streams in ["1", "16"] {
        for (way, arrow) in [("", "up"), ("-R", "down")] {
            let mut iperf = scene.client(120, "iperf3");
            iperf.args(["-J", "-n", OCTETS, "-P", streams, "-p", &IPERF.to_string()]);
            iperf.args(["-c", &scene.vip.to_string()]);
            if !way.is_empty() {
                iperf.arg(way);
            }
            let result = run_json(&mut iperf)?;
            let rate = result.pointer("/end/sum_received/bits_per_second");
            let rate = rate.and_then(serde_json::Value::as_f64);
            let rate = rate.with_context(|| format!("iperf3 says no rate: {result}"))?;
            ensure!(rate > 1e6, "{streams} streams {arrow}: {rate} bit/s");
            let streams = if streams == "1" { "1 stream" } else { "16 streams" };
            figures.push(format!("{streams} {arrow} {:.2}", rate / 1e9));
        }
    }
    Ok(format!("{} Gbit/s", figures.join(", ")))
}

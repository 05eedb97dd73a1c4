//! curl and nginx.

use anyhow::{Context, Result, ensure};

use super::Scene;
use crate::process::run;
use crate::web::{AFTER_PAGE, parse};

/// Connections of the case that counts failures, and how many at a time.
const SHORT: u32 = 10_000;
const AT_A_TIME: &str = "16";

/// Seconds after which they, or a file of 32 MB, hang. Two cores to themselves take two to five; the
/// claim is that none fails, whatever else the machine compiles meanwhile, and however bad a cable is.
const HANGS: u32 = 240;

/// What `timeout` returns then.
const TIMED_OUT: i32 = 124;

pub(super) fn short_connections(scene: &Scene<'_>) -> Result<String> {
    let vip = scene.at(scene.stage.topology().service.port);
    let mut curl = scene.client(HANGS, "curl");
    curl.args(["-s", "--noproxy", "*", "-H", "Connection: close", "--connect-timeout", "10"]);
    curl.args(["--parallel", "--parallel-max", AT_A_TIME, "-w", AFTER_PAGE]);
    let output = curl.arg(format!("http://{vip}/?[1-{SHORT}]")).output()?;
    let client = scene.stage.topology().address_of("client", scene.family)?;
    let answers = parse(&String::from_utf8_lossy(&output.stdout), client);
    let answered = answers.total();
    let wrong = answers.wrong.len();
    ensure!(
        output.status.code() != Some(TIMED_OUT),
        "{answered} answers in {HANGS} s, {wrong} wrong"
    );
    ensure!(
        output.status.success() && answered == u64::from(SHORT),
        "{answered} of {SHORT} were answered, {wrong} wrong; curl: {}",
        output.status
    );
    ensure!(answers.shared + answers.disguised == 0, "connections or addresses are not their own");
    let shares = answers.by_server.iter().map(|(name, share)| format!("{name} {share}"));
    Ok(shares.collect::<Vec<_>>().join(", "))
}

pub(super) fn download(scene: &Scene<'_>) -> Result<String> {
    let topology = scene.stage.topology();
    // The same file at all of them: it is not known who will be asked.
    for dest in &topology.service.dests {
        let www = scene.stage.www(dest);
        let make = format!(
            "mkdir -p {www}; test -s {www}/big || yes rvs | head -c 33554433 | tr -c 'rv' 'x' > {www}/big; \
             sha256sum < {www}/big > {www}/sum"
        );
        scene.shell(dest, &make)?;
    }
    let first = topology.service.dests.first().context("no dests")?;
    let sum = scene.shell(first, &format!("cat {}/sum", scene.stage.www(first)))?;
    let url = format!("http://{}/files/big", scene.at(topology.service.port));
    let fetch = format!("curl -sS --noproxy '*' --max-time {HANGS} '{url}' | sha256sum");
    let got = scene.shell("client", &fetch)?;
    ensure!(got == sum, "another checksum");
    Ok("32 MB".to_owned())
}

pub(super) fn upload(scene: &Scene<'_>) -> Result<String> {
    upload_of(scene, 32 << 20)
}

/// Uploads `octets` from the client by PUT and looks for them at the servers.
pub(super) fn upload_of(scene: &Scene<'_>, octets: usize) -> Result<String> {
    let topology = scene.stage.topology();
    let name = format!("up{octets}-{}", scene.family.name());
    let url = format!("http://{}/files/{name}", scene.at(topology.service.port));
    for dest in &topology.service.dests {
        let www = scene.stage.www(dest);
        scene.shell(dest, &format!("mkdir -p {www}; chmod 777 {www}; rm -f {www}/{name}"))?;
    }
    let file = format!("{}/{name}", scene.stage.www("client"));
    let send = format!(
        "mkdir -p {www}; head -c {octets} /dev/urandom > {file}; sha256sum < {file}; \
         curl -sS --noproxy '*' --fail --max-time {HANGS} -T {file} '{url}' > /dev/null; rm {file}",
        www = scene.stage.www("client")
    );
    let sum = scene.shell("client", &send)?;
    let mut found = 0;
    for dest in &topology.service.dests {
        let there = format!("{}/{name}", scene.stage.www(dest));
        let line = format!("if test -e {there}; then sha256sum < {there}; rm {there}; fi");
        let got = scene.shell(dest, &line)?;
        ensure!(got.is_empty() || got == sum, "{dest} has another checksum");
        found += usize::from(!got.is_empty());
    }
    ensure!(found == 1, "{found} servers have it");
    Ok(format!("{} KB", octets >> 10))
}

pub(super) fn keep_alive(scene: &Scene<'_>) -> Result<String> {
    let url = format!("http://{}/", scene.at(scene.stage.topology().service.port));
    let mut curl = scene.client(60, "curl");
    curl.args(["-sS", "--noproxy", "*", "-w", "%{http_code} %{num_connects}\n", "--rate", "2/s"]);
    let said = run(curl.args([&url, &url, &url]))?;
    let answers: Vec<_> = said.lines().map(|l| l.rsplitn(3, ' ').collect::<Vec<_>>()).collect();
    let connects: Vec<_> = answers.iter().filter_map(|words| words.first().copied()).collect();
    ensure!(connects == ["1", "0", "0"], "connections opened: {connects:?}");
    ensure!(answers.iter().all(|words| words.get(1) == Some(&"200")), "{said}");
    Ok("3 requests, half a second apart".to_owned())
}

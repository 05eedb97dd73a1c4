//! Plots as SVG: rate and latency over time, or over the rates of a search.

use crate::Trouble;
use crate::report::{Scaled, Time};
use crate::search::Step;
use crate::trial::{self, Sample, number};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

const SIZE: (u32, u32) = (1000, 720);

/// Told apart by those who do not see all colours (Okabe and Ito's).
const BLUE: RGBColor = RGBColor(0, 0x72, 0xb2);
const GREEN: RGBColor = RGBColor(0, 0x9e, 0x73);
const RED: RGBColor = RGBColor(0xd5, 0x5e, 0);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);

/// What the lower panel shows, on a logarithmic axis.
const LATENCY: &str = "latency";
/// What the upper panel of a run shows.
const RATE: &str = "packets a second";

/// One line of a panel.
type Line<'l> = (&'l str, RGBColor, Vec<(f64, f64)>);

/// Draws a run: packets a second above, latency below.
///
/// # Errors
///
/// [`Trouble::Plot`].
pub fn run(path: &Path, samples: &[Sample]) -> Result<(), Trouble> {
    let line = |value: fn(&Sample) -> f64| samples.iter().map(|s| (s.at, value(s))).collect();
    let mut rates: Vec<Line<'_>> = vec![("sent", BLUE, line(|s| s.sent_pps))];
    if samples.iter().any(|sample| sample.arrived_pps > 0.0) {
        rates.push(("arrived", GREEN, line(|s| s.arrived_pps)));
    }
    if samples.iter().any(|sample| sample.returned_pps > 0.0) {
        rates.push(("returned", PURPLE, line(|s| s.returned_pps)));
    }
    let latencies = [
        ("p50", GREEN, line(|s| number(s.latency.p50))),
        ("p99", BLUE, line(|s| number(s.latency.p99))),
        ("max", RED, line(|s| number(s.latency.max))),
    ];
    draw(path, "seconds", (RATE, &rates), &latencies)
}

/// Draws a search: loss above, latency below, over the rate that was asked for.
///
/// # Errors
///
/// [`Trouble::Plot`].
pub fn search(path: &Path, steps: &[Step]) -> Result<(), Trouble> {
    let mut steps: Vec<_> = steps.iter().collect();
    steps.sort_by(|a, b| a.pps.total_cmp(&b.pps));
    let line = |value: &dyn Fn(&Step) -> f64| -> Vec<(f64, f64)> {
        steps.iter().map(|step| (step.pps / 1e3, value(step))).collect()
    };
    let latency = |step: &Step| {
        let clients = step.trial.clients.as_ref().map(|clients| clients.latency);
        clients.or(step.trial.servers.as_ref().map(|it| it.latency)).unwrap_or_default()
    };
    let losses = [
        ("lost", RED, line(&|step| 100.0 * step.loss)),
        ("unsent", BLUE, line(&|step| 100.0 * step.shortfall)),
    ];
    let latencies = [
        ("p50", GREEN, line(&|step| number(latency(step).p50))),
        ("p99", BLUE, line(&|step| number(latency(step).p99))),
        ("max", RED, line(&|step| number(latency(step).max))),
    ];
    draw(path, "kpps asked for", ("%", &losses), &latencies)
}

fn draw(
    path: &Path,
    over: &str,
    (unit, above): (&str, &[Line<'_>]),
    below: &[Line<'_>],
) -> Result<(), Trouble> {
    let mut text = String::new();
    let drawn = drawing(&mut text, over, (unit, above), below);
    drawn.map_err(|error| Trouble::Plot { path: path.to_owned(), what: error.to_string() })?;
    std::fs::write(path, text).map_err(|source| Trouble::Write { path: path.to_owned(), source })
}

fn drawing(
    text: &mut String,
    over: &str,
    (unit, above): (&str, &[Line<'_>]),
    below: &[Line<'_>],
) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(SIZE.1 / 2);
    let most = highest(above);
    panel(&upper, (over, unit), 0.0..most * 1.05, above)?;
    // Latencies span orders of magnitude.
    let most = highest(below);
    let values = below.iter().flat_map(|(_, _, line)| line).map(|(_, y)| *y);
    let least = values.filter(|y| *y > 0.0).fold(most, f64::min);
    panel(&lower, (over, LATENCY), (least / 2.0..most * 2.0).log_scale(), below)?;
    area.present()?;
    Ok(())
}

fn highest(lines: &[Line<'_>]) -> f64 {
    let highest = lines.iter().flat_map(|(_, _, line)| line).map(|(_, y)| *y).fold(0.0, f64::max);
    if highest > 0.0 { highest } else { 1.0 }
}

fn panel<Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    (over, unit): (&str, &str),
    y: Y,
    lines: &[Line<'_>],
) -> Result<(), Box<dyn Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let ends = lines.iter().flat_map(|(_, _, line)| line).map(|(x, _)| *x);
    let last = ends.fold(0.0, f64::max).max(1e-3);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..last, y)?;
    let label = |y: &f64| match unit {
        RATE => Scaled(*y).to_string(),
        LATENCY => Duration::try_from_secs_f64(*y / 1e9)
            .map_or_else(|_| String::new(), |it| Time(trial::nanos(it)).to_string()),
        _ => format!("{y:.2}"),
    };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(over).y_desc(unit).y_label_formatter(&label).light_line_style(WHITE).draw()?;
    for (name, color, line) in lines {
        // A logarithm has no place for zero.
        let points = line.iter().copied().filter(|(_, y)| *y > 0.0 || unit != LATENCY);
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8));
    legend.border_style(BLACK).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Percentiles;

    #[test]
    fn a_plot_has_a_line_for_each_rate_and_each_percentile() {
        let sample = |at: u32| Sample {
            at: f64::from(at),
            sent_pps: 1e5,
            arrived_pps: 9e4,
            latency: Percentiles { p50: 5_000, p99: 80_000, max: 3_000_000, ..Default::default() },
            ..Sample::default()
        };
        let samples: Vec<_> = (1..=10).map(sample).collect();
        let path = std::env::temp_dir().join(format!("rvs-pktgen-plot-{}.svg", std::process::id()));
        run(&path, &samples).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["<svg", "sent", "arrived", "p50", "p99", "max", "latency", "seconds"] {
            assert!(text.contains(word), "{word}");
        }
        assert!(text.matches("<polyline").count() >= 5);
        run(&path, &[]).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

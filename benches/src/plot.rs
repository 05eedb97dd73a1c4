//! Plots as SVG: lines over a logarithmic axis, and nothing else.

use std::fmt::Write as _;

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: String,
    /// Beside it.
    pub y: String,
    /// Its lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Left, top, right, bottom.
const MARGIN: [f64; 4] = [64.0, 40.0, 170.0, 52.0];
/// Told apart by those who do not see all colours.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"];

impl Plot {
    /// The file's text; empty when there is nothing to show.
    #[must_use]
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        let mut top = 0.0_f64;
        for (x, y) in points() {
            (least, most, top) = (least.min(*x), most.max(*x), top.max(*y));
        }
        if most == 0.0 {
            return String::new();
        }
        let [left, above, right, below] = MARGIN;
        let step = nice(top / 5.0);
        let top = (top / step).ceil() * step;
        let span = (most / least).log2().max(1.0);
        let across = |x: f64| left + (x / least).log2() / span * (WIDTH - left - right);
        let up = |y: f64| HEIGHT - below - y / top * (HEIGHT - above - below);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n",
            self.title
        );
        let mut value = 0.0;
        while value <= top + step / 2.0 {
            let y = up(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {y:.1}H{:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
                WIDTH - right,
                left - 8.0,
                y + 4.0
            );
            value += step;
        }
        let mut marks: Vec<f64> = points().map(|(x, _)| *x).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        for mark in marks {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                across(mark),
                HEIGHT - below + 18.0,
                short(mark)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, WIDTH - right),
            HEIGHT - 12.0,
            self.x,
            f64::midpoint(above, HEIGHT - below),
            self.y
        );
        let named = self.series.iter().filter(|series| !series.points.is_empty());
        for ((series, colour), line) in named.zip(COLOURS.iter().cycle()).zip(0u8..) {
            let mut path = String::new();
            for (x, y) in &series.points {
                let command = if path.is_empty() { 'M' } else { 'L' };
                let (x, y) = (across(*x), up(*y));
                let _ = write!(path, "{command}{x:.1} {y:.1}");
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let (x, y) = (WIDTH - right + 16.0, above + 18.0 * f64::from(line));
            let _ = writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <path d=\"M{x:.1} {y:.1}h18\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 24.0,
                y + 4.0,
                series.name
            );
        }
        svg + "</svg>\n"
    }
}

/// 1, 2 or 5 times a power of ten, not less than `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|it| *it >= step)
        .unwrap_or(step)
}

/// A power of two as people say it.
#[must_use]
pub fn short(value: f64) -> String {
    const MEGA: f64 = 1_048_576.0;
    if value >= MEGA {
        format!("{:.0}M", value / MEGA)
    } else if value >= 1024.0 {
        format!("{:.0}k", value / 1024.0)
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_and_every_name_is_in_the_picture() {
        let series = |name: &str| Series {
            name: name.to_owned(),
            points: vec![(1024.0, 10.0), (65_536.0, 20.0), (1_048_576.0, 30.0)],
        };
        let plot = Plot {
            title: "t".to_owned(),
            x: "x".to_owned(),
            y: "y".to_owned(),
            series: vec![series("one"), series("two")],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<circle").count(), 6);
        for text in [">one<", ">two<", ">1k<", ">64k<", ">1M<", ">30<"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert_eq!(Plot { series: vec![], ..plot }.svg(), "");
    }

    #[test]
    fn steps_are_round() {
        let all = [(0.9, "1"), (1.1, "2"), (3.0, "5"), (7.0, "10"), (34.0, "50")];
        for (step, expected) in all {
            assert_eq!(format!("{:.0}", nice(step)), expected);
        }
    }
}

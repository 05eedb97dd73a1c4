//! What a packet costs on one core, without a network card; and what else a director must stand.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use core_affinity::CoreId;
use rvs_benches::count::{Count, count};
use rvs_benches::limit;
use rvs_benches::link::MISSING;
use rvs_benches::measure::{Effort, Floors, Row, measure};
use rvs_benches::scenario::Scenario;
use rvs_benches::{Case, Family, Link, Mode, probe, report};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Measures what a packet costs.
///
/// Without arguments: all modes, families, flow counts and scenarios, the memory probe, huge pages
/// off, and the other bursts, in less than ten minutes.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
#[expect(clippy::struct_excessive_bools, reason = "what a command line offers")]
struct Arguments {
    /// What frames come through; all if none is named.
    #[arg(long, value_delimiter = ',')]
    link: Vec<Link>,
    /// What the packets are; all if none is named.
    #[arg(long, value_delimiter = ',')]
    mode: Vec<Mode>,
    /// IPv4 or IPv6; both if none is named.
    #[arg(long, value_delimiter = ',')]
    family: Vec<Family>,
    /// Connections, as 1024, 64k or 1M; 1k, 64k, 1M and, with the memory link, 16M if none is named.
    #[arg(long, value_delimiter = ',', value_parser = number)]
    flows: Vec<u32>,
    /// Frames per breath, 1 to 256; 64, and others in some cases, if none is named.
    #[arg(long, value_delimiter = ',')]
    burst: Vec<usize>,
    /// Tables in pages of the usual size only.
    #[arg(long)]
    small_pages: bool,
    /// Rounds; 15, or 3 with DPDK's links, if none is named.
    #[arg(long)]
    runs: Option<usize>,
    /// Packets of a round, as 65536, 64k or 1M; 256k, or 64k with DPDK's links, if none is named.
    #[arg(long, value_parser = number)]
    packets: Option<u32>,
    /// Does not count instructions.
    #[arg(long)]
    no_instructions: bool,
    /// What else is measured; all if nothing at all is named, none otherwise.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// The memory probe; on if nothing at all is named.
    #[arg(long)]
    probe: bool,
    /// The core that is measured on; the last if none is named.
    #[arg(long)]
    core: Option<usize>,
    /// Where to write the rows as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keeps the rows of that file that are not measured now.
    #[arg(long, requires = "json")]
    append: bool,
    /// A folder for the tables as Markdown and the plots as SVG.
    #[arg(long)]
    report: Option<PathBuf>,
    /// An earlier JSON file to compare with.
    #[arg(long)]
    compare: Option<PathBuf>,
}

/// How long rounds are made up for that others disturbed: all of it ends within ten minutes.
const PATIENCE: Duration = Duration::from_mins(2);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    pin(&cores, arguments.core);
    let cases = cases(&arguments);
    let mut rows = Vec::new();
    let (mut counts, mut floors) = (HashMap::new(), Floors::new(PATIENCE));
    if !cases.is_empty() {
        println!("{}", report::headings());
    }
    if let Some(missing) = MISSING.filter(|_| is_all(&arguments)) {
        eprintln!("{missing}");
    }
    for (link, case) in cases {
        let (runs, packets) = if link == Link::Memory { (15, 1 << 18) } else { (3, 1 << 16) };
        let effort = Effort {
            runs: arguments.runs.unwrap_or(runs),
            packets: arguments.packets.unwrap_or(packets),
        };
        // DPDK starts slowly under callgrind: of IPv6, only when its links are asked for.
        let is_counted = link == Link::Memory || case.family == Family::V4 || !is_all(&arguments);
        let is_counted = is_counted && !arguments.no_instructions;
        let count = if is_counted { counted(&mut counts, link, case) } else { None };
        let row = measure(link, case, count, effort, &mut floors)
            .with_context(|| format!("{link} {} {} {}", case.mode, case.family, case.flows))?;
        println!("{}", report::line(&row));
        rows.push(row);
    }
    let is_all = is_all(&arguments);
    let scenarios = if is_all { &Scenario::ALL[..] } else { &arguments.scenario };
    let mut figures = Vec::new();
    for scenario in scenarios {
        for figure in scenario.run(1 << 20, &cores)? {
            println!("{:<90} {:>24}   {}", figure.what, figure.value, figure.target);
            figures.push(figure);
        }
    }
    let probe = if is_all || arguments.probe { probed() } else { String::new() };
    print!("{probe}");
    println!("{:.0} s", begun.elapsed().as_secs_f64());
    if let Some(file) = &arguments.compare {
        print!("{}", report::compare(&rows, &read(file)?));
    }
    if let Some(file) = &arguments.json {
        if arguments.append && file.exists() {
            let mut before = read(file)?;
            before.retain(|old| !rows.iter().any(|row| report::is_same_case(old, row)));
            rows.splice(0..0, before);
        }
        rows.sort_by_key(report::place);
        write(file, &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    }
    let limits = if is_all || arguments.probe { limit::table(&rows) } else { String::new() };
    print!("{limits}");
    if let Some(folder) = &arguments.report {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        write(&folder.join("rows.md"), &report::table(&rows))?;
        for (name, text) in
            [("figures.md", report::figures(&figures)), ("probe.md", probe), ("limits.md", limits)]
        {
            if text.lines().count() > 2 {
                write(&folder.join(name), &text)?;
            }
        }
        for (name, svg) in report::plots(&rows) {
            if !svg.is_empty() {
                write(&folder.join(name), &svg)?;
            }
        }
    }
    Ok(())
}

/// Onto one core, where caches stay warm.
fn pin(cores: &[CoreId], core: Option<usize>) {
    let wanted = |it: &&CoreId| core.is_none_or(|core| it.id == core);
    if let Some(core) = cores.iter().rev().find(wanted) {
        core_affinity::set_for_current(*core);
    }
}

/// Whether nothing was chosen.
fn is_all(arguments: &Arguments) -> bool {
    !has_subset(arguments) && arguments.scenario.is_empty() && !arguments.probe
}

/// Whether some of the cases were chosen.
fn has_subset(arguments: &Arguments) -> bool {
    !arguments.link.is_empty()
        || !arguments.mode.is_empty()
        || !arguments.family.is_empty()
        || !arguments.flows.is_empty()
        || !arguments.burst.is_empty()
}

fn cases(arguments: &Arguments) -> Vec<(Link, Case)> {
    if !has_subset(arguments) && !is_all(arguments) {
        return Vec::new();
    }
    let mut cases = Vec::new();
    let built = if MISSING.is_none() { &Link::ALL[..] } else { &[Link::Memory] };
    for link in chosen(&arguments.link, built) {
        let flow_counts: &[u32] = match link {
            Link::Memory => &[1 << 10, 1 << 16, 1 << 20, 1 << 24],
            Link::NetRing | Link::NetPcap => &[1 << 10, 1 << 16, 1 << 20],
        };
        let flow_counts = chosen(&arguments.flows, flow_counts);
        for mode in chosen(&arguments.mode, &Mode::ALL) {
            for family in chosen(&arguments.family, &Family::ALL) {
                for flows in &flow_counts {
                    let usual = Case::new(mode, family, *flows);
                    let usual = Case { huge_pages: !arguments.small_pages, ..usual };
                    for burst in chosen(&arguments.burst, &[64]) {
                        cases.push((link, Case { burst, ..usual }));
                    }
                    // What bursts and pages bring is shown where it shows.
                    let is_example = matches!(mode, Mode::Dr | Mode::Nat) && family == Family::V4;
                    let is_example = is_example && link == Link::Memory;
                    if is_example && *flows >= 1 << 20 && arguments.burst.is_empty() {
                        cases.push((link, Case { huge_pages: false, ..usual }));
                        if *flows == 1 << 20 {
                            let bursts = [1, 16, 32, 128, 256];
                            cases.extend(bursts.map(|burst| (link, Case { burst, ..usual })));
                        }
                    }
                }
            }
        }
    }
    cases.dedup();
    cases
}

fn chosen<T: Copy>(named: &[T], all: &[T]) -> Vec<T> {
    if named.is_empty() { all.to_vec() } else { named.to_vec() }
}

/// The instruction count of a mode, if it can be had; the reason once, if not.
fn counted(
    counts: &mut HashMap<(&'static str, &'static str, &'static str), Option<Count>>,
    link: Link,
    case: Case,
) -> Option<Count> {
    *counts.entry((link.name(), case.mode.name(), case.family.name())).or_insert_with(|| {
        count(link, case.mode, case.family)
            .inspect_err(|error| eprintln!("no instruction counts: {error:#}"))
            .ok()
    })
}

fn probed() -> String {
    let sets = [1, 4, 16, 64, 128, 256, 1024, 2048].map(|mebi: u64| mebi << 20);
    let both = sets.into_iter().flat_map(|octets| [(octets, true), (octets, false)]);
    let latencies: Vec<probe::Latency> =
        both.map(|(octets, huge)| probe::latency(octets, huge)).collect();
    report::probe(&latencies, probe::bandwidth())
}

fn read(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no bench's", file.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// A number, or so many thousands or millions of two's powers: `64k`, `1M`.
fn number(text: &str) -> Result<u32> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']).zip(Some(1 << 10)) {
        Some(thousands) => thousands,
        None => text.strip_suffix(['M', 'm']).map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let value = digits.parse::<u32>()?.checked_mul(factor).context("too large")?;
    Ok(value.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_thousands_and_millions() {
        assert_eq!(number("1000").unwrap(), 1000);
        assert_eq!(number("64k").unwrap(), 65_536);
        assert_eq!(number("1M").unwrap(), 1 << 20);
        assert!(number("5000M").is_err() && number("k").is_err() && number("1x").is_err());
    }

    #[test]
    fn a_subset_is_what_was_named_and_all_is_everything() {
        let of =
            |arguments: &[&str]| cases(&Arguments::parse_from(["bench"].iter().chain(arguments)));
        let memory = |arguments: &[&str]| of(&[&["--link", "memory"], arguments].concat()).len();
        assert_eq!(memory(&["--mode", "tun", "--flows", "1k,64k", "--family", "v6"]), 2);
        assert_eq!(memory(&["--mode", "nat", "--flows", "1M", "--family", "v4"]), 7);
        assert_eq!(of(&["--link", "net_ring", "--mode", "nat"]).len(), 6);
        assert!(of(&["--scenario", "timers"]).is_empty());
        let all = of(&[]);
        for mode in Mode::ALL {
            for family in Family::ALL {
                let flows = all.iter().filter(|(_, it)| (it.mode, it.family) == (mode, family));
                assert!(flows.clone().any(|(_, it)| it.flows == 1 << 24), "{mode} {family}");
            }
        }
    }
}

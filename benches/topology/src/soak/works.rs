//! What is done in each round: first all at once, then what needs calm, one after another.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rvs_api::Totals;
use rvs_lab::process::{Daemon, Limits, run};

use super::estate::{Estate, MORTAL, MORTALS, NOBODY, PLACES, PROBE, Place, at};
use crate::stage::{BULK, HTTP, REALS6, SERVERS, Stage, VIP, ip};

/// A page whose content is known: as in [`Stage::serve`].
const LARGE: usize = 4 << 20;
/// Datagrams and their octets that are counted at both ends.
const COUNTED: (u64, u64) = (300, 100);
/// Octets of UDP's header, and of IP's of either family.
const UDP: u64 = 8;
const IPV4: u64 = 20;
const IPV6: u64 = 40;

/// Something to do.
pub type Work = fn(&Estate, &Limits) -> Result<()>;

/// All at once.
pub const STORM: [(&str, Work); 8] = [
    ("short connections", |_, _| everywhere(|place| wrk(place, &["-H", "Connection: close"]))),
    ("requests", |_, _| everywhere(|place| wrk(place, &[]))),
    ("downloads", |_, _| everywhere(download)),
    ("uploads", |_, _| everywhere(upload)),
    ("bulk", |_, _| bulk()),
    ("datagrams in fragments", |estate, _| everywhere(|place| fragments(estate, place))),
    ("pings", |estate, _| everywhere(|place| ping(estate, place))),
    ("hanging up", |_, _| everywhere(hang_up)),
];

/// One after another. None of these may lose anything.
pub const CALM: [(&str, Work); 5] = [
    ("books", |estate, limits| everywhere(|place| books(estate, place, limits))),
    ("changes and lists under traffic", |estate, _| everywhere(|place| changes(estate, place))),
    ("servers that come and go", comings),
    ("a flood of datagrams", |_, _| flood()),
    ("a cable that is pulled", |estate, _| pulled(estate)),
];

/// The same at every place.
fn everywhere(work: impl Fn(&Place) -> Result<()>) -> Result<()> {
    PLACES.iter().try_for_each(|place| work(place).with_context(|| place.name))
}

fn wrk(place: &Place, more: &[&str]) -> Result<()> {
    let mut wrk = Estate::client("wrk");
    wrk.args(["-t1", "-c16", "-d1s", "--timeout", "10s"]).args(more);
    let said = run(wrk.arg(format!("http://{}/", place.at(HTTP))))?;
    let wrong =
        said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    match wrong {
        Some(line) => bail!("{}", line.trim()),
        None => Ok(()),
    }
}

fn curl(more: &[&str]) -> Command {
    let mut curl = Estate::client("curl");
    curl.args(["-s", "-S", "-f", "-g", "--noproxy", "*"]).args(more);
    curl
}

fn download(place: &Place) -> Result<()> {
    let output = curl(&[&format!("http://{}/large", place.at(HTTP))]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let body = output.stdout;
    ensure!(body.len() == LARGE && body.iter().all(|octet| *octet == b'x'), "another page came");
    Ok(())
}

/// The server counts what comes and tells a sum of it: through a tunnel the client must learn first
/// how long packets may be.
fn upload(place: &Place) -> Result<()> {
    let octets = 2_000_000;
    let line =
        format!("head -c {octets} /dev/zero | tr '\\0' r | nc -N -w 30 {} {PROBE}", place.vip);
    let said = run(Estate::client("sh").args(["-c", &line]))?;
    let (mut count, mut sum) = (0, 0);
    let _ = rvs_lab::probe::count(&vec![b'r'; octets], &mut count, &mut sum);
    ensure!(said == format!("{octets} octets {sum:x}\n"), "the server says {said:?}");
    Ok(())
}

fn bulk() -> Result<()> {
    for place in PLACES.iter().filter(|place| place.both_ways) {
        for more in [&[][..], &["-R", "-P", "4"]] {
            let mut iperf = Estate::client("iperf3");
            iperf.args(["-c", place.vip, "-p", &BULK.to_string(), "-t", "1"]);
            run(iperf.args(["--connect-timeout", "30000"]).args(more))?;
        }
    }
    Ok(())
}

fn fragments(estate: &Estate, place: &Place) -> Result<()> {
    let to = place.at(PROBE);
    estate.probe(&["datagrams", &to, "--count", "20", "--octets", "4000"])?;
    estate.probe(&["datagrams", &to, "--count", "3", "--octets", "30000"]).map(drop)
}

/// The VIP answers; a service that nobody serves is told of by the servers' own ICMP errors, the next
/// time if a storm took the first datagram.
fn ping(estate: &Estate, place: &Place) -> Result<()> {
    run(Estate::client("ping").args(["-n", "-c", "5", "-i", "0.1", "-W", "5", place.vip]))?;
    if place.both_ways {
        let error = estate.probe(&["datagrams", &place.at(NOBODY)]).err();
        let error = error.context("somebody took a datagram that nobody serves")?;
        ensure!(format!("{error:#}").contains("refused"), "{error:#}");
    }
    Ok(())
}

/// Clients that leave in the middle, and ones that ask where nothing is.
fn hang_up(place: &Place) -> Result<()> {
    let url = format!("http://{}/large", place.at(HTTP));
    let half = format!("curl -s -g --noproxy '*' '{url}' | head -c 100000 >/dev/null");
    run(Estate::client("sh").args(["-c", &half]))?;
    let nobody = format!("http://{}/", place.at(81));
    let refused = curl(&["--max-time", "2", &nobody]).output()?.status;
    ensure!(!refused.success(), "nobody serves there");
    Ok(())
}

/// What a client counts, rvsd counts, to the packet and the octet, and so do its destinations.
fn books(estate: &Estate, place: &Place, limits: &Limits) -> Result<()> {
    let address = place.at(PROBE);
    let (count, octets) = COUNTED;
    let before = estate.totals("udp", &address)?.0;
    let (some, long) = (count.to_string(), octets.to_string());
    let said = estate.probe(&["datagrams", &address, "--count", &some, "--octets", &long])?;
    let again = number_before(&said, "on another try")?;
    let packets = count + again;
    let each = octets + UDP + if place.is_v6() { IPV6 } else { IPV4 };
    let mut expected =
        Totals { conns: 1, packets_in: packets, octets_in: packets * each, ..Totals::default() };
    if place.both_ways {
        (expected.packets_out, expected.octets_out) = (packets, packets * each);
    }
    settled(estate, limits, ("udp", &address), |now| now.since(before) == expected)
        .with_context(|| format!("{expected:?} more than {before:?}"))?;

    let before = estate.totals("tcp", &address)?.0;
    let said = estate.probe(&["fresh", &address, "--millis", "200"])?;
    let conns = number_before(&said, "connections")?;
    settled(estate, limits, ("tcp", &address), |now| now.since(before).conns == conns)
        .with_context(|| format!("{conns} connections more than {before:?}"))
}

/// Waits until a service's totals are as they should be, and its destinations' the same: workers
/// publish theirs now and then.
fn settled(
    estate: &Estate,
    limits: &Limits,
    (protocol, address): (&str, &str),
    good: impl Fn(Totals) -> bool,
) -> Result<()> {
    let mut last = (Totals::default(), Totals::default());
    let outcome = limits.wait("counters", Duration::from_secs(30), || {
        last = estate.totals(protocol, address)?;
        Ok((good(last.0) && last.0 == last.1).then_some(()))
    });
    outcome
        .with_context(|| format!("{protocol} {address} has {:?}, its servers {:?}", last.0, last.1))
}

/// The number that stands before `words` in what a program said.
fn number_before(said: &str, words: &str) -> Result<u64> {
    let before = said.split_once(words).map(|(before, _)| before.trim());
    let number = before.and_then(|before| before.rsplit([' ', ',']).next()?.parse().ok());
    number.with_context(|| format!("no number of {words} in {said:?}"))
}

/// Runs `act` while somebody asks for pages, one after another; none may fail.
fn under_requests(place: &Place, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let url = format!("http://{}/?[1-200]", place.at(HTTP));
    let mut asking = Estate::client("curl");
    asking.args(["-s", "-S", "-f", "--noproxy", "*", "--max-time", "30", "-o", "/dev/null"]);
    let asking = asking.arg(url).spawn()?;
    let done = act();
    let output = asking.wait_with_output()?;
    done?;
    ensure!(output.status.success(), "a request failed meanwhile");
    Ok(())
}

/// Destinations come, change and go. New connections find others; old ones end where they began.
fn changes(estate: &Estate, place: &Place) -> Result<()> {
    let (rvsd, vip) = (&estate.rvsd, place.at(HTTP));
    under_requests(place, || {
        for (real, options) in place.reals {
            let real = at(real, HTTP);
            for weight in ["0", "3"] {
                let edit = ["-e", "-t", &vip, "-r", &real, "-w", weight];
                rvsd.adm(&[&edit[..], options].concat())?;
            }
        }
        for scheduler in ["wrr", "lc", "mh", "rr"] {
            rvsd.adm(&["-E", "-t", &vip, "-s", scheduler])?;
        }
        let (other, real) = if place.is_v6() {
            ("[fd99::9]:80", "[fd20::11]:80")
        } else {
            ("10.99.0.9:80", "10.20.0.11:80")
        };
        rvsd.adm(&["-A", "-t", other, "-s", "wlc"])?;
        rvsd.adm(&["-a", "-t", other, "-r", real, "-g"])?;
        rvsd.adm(&["-D", "-t", other])?;
        for list in [&["-Ln"][..], &["-Ln", "--stats"], &["-Lnc"], &["-Ln", "--rate"], &["-Sn"]] {
            rvsd.adm(list)?;
        }
        Ok(())
    })
}

/// Servers die one after the other; each is taken out, as a health check does, and comes back.
fn comings(estate: &Estate, limits: &Limits) -> Result<()> {
    let places = || PLACES.iter().filter(|place| place.both_ways).zip([0, 1]);
    let tell = |word: &str, (port, reals): (u16, [&'static str; 2])| -> Result<()> {
        for ((place, _), real) in places().zip(reals) {
            let (vip, real) = (place.at(MORTAL), at(real, port));
            let mut words = vec![word, "-t", &vip, "-r", &real];
            words.extend((word == "-a").then_some("-m"));
            estate.rvsd.adm(&words)?;
        }
        Ok(())
    };
    let serve = |(port, _): (u16, [&str; 2])| -> Result<Daemon> {
        let arguments = ["serve", &port.to_string()];
        let mut server = estate.keeps(SERVERS, &format!("mortal-{port}"), &arguments)?;
        server.wait_for_line("probe: ready", limits)?;
        Ok(server)
    };
    let all_answer = || -> Result<()> {
        for (place, _) in places() {
            estate
                .probe(&["fresh", &place.at(MORTAL), "--millis", "150"])
                .with_context(|| place.name)?;
        }
        Ok(())
    };
    let mut servers = MORTALS.map(serve).into_iter().collect::<Result<Vec<_>>>()?;
    MORTALS.iter().try_for_each(|mortal| tell("-a", *mortal))?;
    all_answer()?;
    for (mortal, server) in MORTALS.iter().zip(&mut servers) {
        server.signal("KILL")?;
        server.reap()?;
        tell("-d", *mortal)?;
        all_answer().context("while one is dead")?;
        *server = serve(*mortal)?;
        tell("-a", *mortal)?;
        all_answer().context("after it came back")?;
    }
    MORTALS.iter().try_for_each(|mortal| tell("-d", *mortal))
}

fn flood() -> Result<()> {
    let own = std::env::current_exe()?;
    run(Estate::client(own).args(["flood", &format!("{VIP}:{HTTP}"), "1"])).map(drop)
}

/// The servers' link goes down and comes back.
fn pulled(estate: &Estate) -> Result<()> {
    ip(SERVERS, "link set r0 down\n")?;
    thread::sleep(Duration::from_millis(200));
    // With the link went its routes and neighbours.
    let addresses = REALS6.map(|real| format!("addr replace {real}/64 dev r0 nodad\n")).concat();
    let back = format!(
        "link set r0 up\n{addresses}\
         neigh replace 10.20.0.1 lladdr 02:00:00:00:00:d1 dev r0 nud permanent\n\
         neigh replace fd20::1 lladdr 02:00:00:00:00:d1 dev r0 nud permanent\n\
         route replace default via 10.20.0.1\nroute replace default via fd20::1\n"
    );
    ip(SERVERS, &back)?;
    let until = Instant::now() + Duration::from_mins(1);
    while Stage::fetch("/").is_err() {
        ensure!(
            Instant::now() < until,
            "no answer after the link came back: {}",
            estate.rvsd.adm(&["-Ln"])?
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn what_probes_say_is_read() {
        let said = "300 datagrams of 100 octets came back, 2 on another try, 0.01 s";
        assert_eq!(number_before(said, "on another try").unwrap(), 2);
        assert_eq!(number_before("41 connections, longest 3 ms", "connections").unwrap(), 41);
        assert!(number_before("nothing", "connections").is_err());
    }
}

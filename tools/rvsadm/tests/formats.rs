//! Formats and words that the recordings do not show. What is expected here was printed by Debian's
//! ipvsadm 1.31.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails shall stop")]

mod common;

use common::{LIMITS, RecordedNames, Said, Table, service_of};
use rvs_adm::{SocketTransport, Transport, run};
use rvs_api::{ClientError, Outcome, Reply, Request, Totals};
use rvs_control::state::State;
use std::cell::RefCell;
use std::io::{self, BufRead, Read};

fn table(lines: &str) -> Table {
    let mut table = Table::new(State::new(LIMITS).accept_everything());
    let said = table.say("-R", lines, &RecordedNames::default());
    assert_eq!(said, told(""));
    table
}

fn told(out: &str) -> Said {
    Said { status: 0, out: out.to_owned(), err: String::new() }
}

fn say(table: &mut Table, line: &str) -> Said {
    table.say(line, "", &RecordedNames::default())
}

#[test]
fn large_numbers_are_shortened_unless_they_shall_be_exact() {
    let mut table = table("-A -t 10.0.0.1:80\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m");
    let service = service_of("TCP 10.0.0.1:80").unwrap();
    let dest = table.dest(&service, "10.0.0.2:80".parse().unwrap()).unwrap();
    let totals = Totals {
        conns: 99_999_999,
        packets_in: 100_000_000,
        packets_out: 1_000_000_000,
        octets_in: 100_000_000_000,
        octets_out: 100_000_000_000_000,
    };
    table.traffic.totals.insert(dest, totals);
    let short = say(&mut table, "-Ln --stats").out;
    let row = short.lines().last().unwrap();
    assert_eq!(
        row,
        "  -> 10.0.0.2:80                  99999999  100000K    1000M     100G     100T"
    );
    let exact = say(&mut table, "-Ln --stats --exact").out;
    let row = exact.lines().last().unwrap();
    assert_eq!(
        row,
        "  -> 10.0.0.2:80                  99999999 100000000 1000000000 100000000000 \
         100000000000000"
    );
}

#[test]
fn tunnels_are_told_on_request() {
    let mut table = table(
        "-A -t 10.0.0.1:80\n\
         -a -t 10.0.0.1:80 -r 10.0.0.2 -i\n\
         -a -t 10.0.0.1:80 -r 10.0.0.3 -i --tun-type gue --tun-port 6080 --tun-remcsum\n\
         -a -t 10.0.0.1:80 -r 10.0.0.4 -i --tun-type gre --tun-csum\n\
         -a -t 10.0.0.1:80 -r 10.0.0.5 -m",
    );
    let out = say(&mut table, "-Ln --tun-info").out;
    let rows: Vec<&str> = out.lines().skip(2).collect();
    assert_eq!(
        rows,
        [
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn",
            "TCP  10.0.0.1:80 wlc",
            "  -> 10.0.0.2:80                  Tunnel  ipip          1      0          0         ",
            "  -> 10.0.0.3:80                  Tunnel  gue:6080:r+c  1      0          0         ",
            "  -> 10.0.0.4:80                  Tunnel  gre:+c        1      0          0         ",
            "  -> 10.0.0.5:80                  Masq    n/a           1      0          0         ",
        ]
    );
}

#[test]
fn marks_are_signed_and_their_ports_have_no_names() {
    let mut table = table("-A -f 4294967295\n-a -f 4294967295 -r 10.0.0.2:80 -m");
    let save = say(&mut table, "-S");
    assert_eq!(save, told("-A -f -1 -s wlc\n-a -f -1 -r 10.0.0.2:80 -m -w 1\n"));
}

#[test]
fn addresses_that_hold_an_ipv4_one_are_written_as_glibc_writes_them() {
    let mut table = table("-A -t [::192.0.2.1]:80\n-A -t [::ffff:192.0.2.1]:80\n-A -t [::9]:80");
    let save = say(&mut table, "-Sn");
    let expected = "-A -t [::192.0.2.1]:80 -s wlc\n-A -t [::9]:80 -s wlc\n\
                    -A -t [::ffff:192.0.2.1]:80 -s wlc\n";
    assert_eq!(save, told(expected));
}

#[test]
fn what_is_saved_is_restored_and_saved_the_same() {
    let lines = "-A -t 10.0.0.1:80 -s sh -b sh-port\n\
                 -a -t 10.0.0.1:80 -r 10.0.0.3:8080 -m -w 2\n\
                 -A -u [2001:db8::1]:53 -s rr -p 7 -M 64 -o\n\
                 -a -u [2001:db8::1]:53 -r [2001:db8::2]:53 -g -w 0\n";
    let first = say(&mut table(lines), "-Sn").out;
    let second = say(&mut table(&first), "-Sn").out;
    assert_eq!(first, second);
    assert_eq!(first.lines().count(), 4);
}

#[test]
fn restoring_stops_at_a_fault_and_goes_on_after_a_refusal_or_an_unknown_option() {
    let mut table = Table::new(State::new(LIMITS));
    let names = RecordedNames::default();
    let said = table.say("-R", "-D -t 10.0.0.9:80\n-A --nosuch\n-A -t 10.0.0.1:80\n", &names);
    assert_eq!((said.status, said.out.as_str()), (0, ""));
    assert_eq!(said.err, "No such service\n--nosuch: unknown option\n");

    let said = table.say("-R", "-A -t 10.0.0.2:80\n-A -t 10.0.0.1:80", &names);
    assert_eq!((said.status, said.err.as_str()), (255, "Service already exists\n"));

    let said = table.say("-R", "-A -t 10.0.0.3:80\n-A -t x\n-A -t 10.0.0.4:80\n", &names);
    assert_eq!(said.status, 2);
    assert_eq!(said.err, "illegal virtual server address[:port] specified\n");
    let save = table.say("-Sn", "", &names).out;
    let addresses: Vec<&str> = save.lines().map(|line| &line[6..14]).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);

    let said = table.say("-R", "-C\n-R\n-A -t 10.0.0.5:80\n", &names);
    assert_eq!(said.status, 255);
    assert!(said.err.starts_with("Try `ipvsadm -h'"));
    assert_eq!(table.say("-Sn", "", &names), told(""));
}

#[test]
fn what_the_engine_cannot_do_is_one_line_and_status_255() {
    let mut table = Table::new(State::new(LIMITS));
    let said = say(&mut table, "--start-daemon master --mcast-interface eth0");
    let err = "No such device\n";
    assert_eq!(said, Said { status: 255, out: String::new(), err: err.to_owned() });
    let said = say(&mut table, "-A -t 10.0.0.1:80 -s nosuch");
    let err = "Scheduler or persistence engine not found\n";
    assert_eq!(said, Said { status: 255, out: String::new(), err: err.to_owned() });
    assert_eq!(say(&mut table, "-Sn"), told(""));
}

#[test]
fn without_rvsd_there_is_one_line_and_status_2_but_help_all_the_same() {
    let nowhere = || SocketTransport::new("/nonexistent/rvsd.sock".into());
    let call = |line: &str| {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let names = RecordedNames::default();
        let status = run(&argv, &mut io::empty(), &mut nowhere(), &names, &mut out, &mut err);
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (status, out, err) = call("rvsadm -Ln");
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.starts_with("Can't initialize ipvs: cannot reach rvsd at /nonexistent/rvsd.sock"));
    assert_eq!(err.lines().count(), 1);
    let (status, out, err) = call("rvsadm -h");
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("  rvsadm -A|E virtual-service"));
    assert_eq!(call("rvsadm -C -n").0, 2);
}

/// Input that arrives in pieces, and what had been changed when each was asked for.
struct Pieces<'a> {
    left: Vec<&'static [u8]>,
    changed: &'a RefCell<usize>,
    seen: Vec<usize>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("only in pieces"))
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.seen.push(*self.changed.borrow());
        Ok(self.left.first().copied().unwrap_or_default())
    }

    fn consume(&mut self, octets: usize) {
        if octets > 0 {
            self.left.remove(0);
        }
    }
}

/// Counts changes and batches.
struct Counter<'a> {
    changed: &'a RefCell<usize>,
    batches: usize,
}

impl Transport for Counter<'_> {
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        *self.changed.borrow_mut() += requests.len();
        self.batches += 1;
        Ok(vec![Ok(Reply::Done); requests.len()])
    }
}

#[test]
fn lines_are_done_before_there_is_a_wait_for_more_and_together_when_they_come_together() {
    let changed = RefCell::new(0);
    let mut stdin = Pieces {
        left: vec![b"-C\n-C\n-", b"C\n", b"-C", b"\n", b"-C"],
        changed: &changed,
        seen: Vec::new(),
    };
    let mut transport = Counter { changed: &changed, batches: 0 };
    let argv = ["ipvsadm", "-R"].map(str::to_owned);
    let names = RecordedNames::default();
    let status = run(&argv, &mut stdin, &mut transport, &names, &mut io::sink(), &mut io::sink());
    assert_eq!(status, 0);
    assert_eq!(stdin.seen, [0, 2, 3, 3, 4, 4]);
    assert_eq!((transport.batches, *changed.borrow()), (4, 5));
}

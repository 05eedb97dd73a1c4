//! No command line, sensible or not, brings `rvsadm` or the table behind it down.

mod common;

use common::{LIMITS, RecordedNames, Table};
use rvs_adm::run;
use rvs_control::state::State;

/// Words that mean something, so that lines get past the first check.
const WORDS: [&str; 72] = [
    "-A",
    "-E",
    "-D",
    "-C",
    "-L",
    "-l",
    "-a",
    "-e",
    "-d",
    "-R",
    "-S",
    "-Z",
    "--set",
    "-h",
    "-v",
    "--start-daemon",
    "--stop-daemon",
    "master",
    "-t",
    "-u",
    "--sctp-service",
    "-f",
    "-6",
    "-s",
    "-p",
    "-M",
    "-o",
    "-b",
    "--pe",
    "-r",
    "-m",
    "-g",
    "-i",
    "-w",
    "-x",
    "-y",
    "-n",
    "-c",
    "-X",
    "--stats",
    "--rate",
    "--thresholds",
    "--persistent-conn",
    "--timeout",
    "--daemon",
    "--nosort",
    "--tun-type",
    "--tun-port",
    "--tun-csum",
    "gue",
    "gre",
    "10.0.0.1:80",
    "10.0.0.1:0",
    "[2001:db8::1]:80",
    "[2001:db8::1",
    "10.0.0.2",
    "rr",
    "sh",
    "sh-port,flag-1",
    "5",
    "0",
    "-1",
    "2147483647",
    "4294967296",
    "255.255.255.0",
    "224.0.0.81",
    "--",
    "-",
    "",
    "=",
    "\u{e9}\u{fffd}",
    "\0",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit
    }

    fn word(&mut self) -> String {
        let mut word = WORDS.get(self.below(WORDS.len())).copied().unwrap_or_default().to_owned();
        match self.below(12) {
            0 => word.push_str(WORDS.get(self.below(WORDS.len())).copied().unwrap_or_default()),
            1 => word.insert(0, '-'),
            2 => word.push('='),
            3 => {
                word.pop();
            }
            4 => word
                .push(char::from_u32(u32::try_from(self.below(0x300)).unwrap_or(0)).unwrap_or('x')),
            _ => {}
        }
        word
    }

    fn line(&mut self) -> Vec<String> {
        (0..self.below(9)).map(|_| self.word()).collect()
    }
}

#[test]
fn random_command_lines_end_with_a_status() {
    let mut random = Random(1);
    let names = RecordedNames::new("10.0.0.1 \u{e9}\u{e9}\u{e9}.example\n");
    for accept_everything in [true, false] {
        let state = State::new(LIMITS);
        let state = if accept_everything { state.accept_everything() } else { state };
        let mut table = Table::new(state);
        for _ in 0..30_000 {
            let mut argv = vec!["ipvsadm".to_owned()];
            argv.extend(random.line());
            let lines = (0..random.below(4)).map(|_| random.line().join(" "));
            let stdin = lines.collect::<Vec<_>>().join("\n");
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let stdin = &mut stdin.as_bytes();
            let status = run(&argv, stdin, &mut table, &names, &mut out, &mut err);
            assert!([0, 1, 2, 255].contains(&status), "{argv:?}: {status}");
            assert!(status == 0 || !err.is_empty(), "{argv:?} fails without a word");
        }
    }
}

//! The real servers' web server and the client's requests.
//!
//! nginx answers every request with one line that names the server and the client that it saw; curl
//! asks for a range of pages with `Connection: close`, so that each is a connection of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Daemon, Limits, command};

/// What curl prints after each page: status and how many connections the request opened.
pub const AFTER_PAGE: &str = "%{http_code} %{num_connects}\\n";

/// Starts nginx on `host`, listening on TCP `port` of all its addresses of both families.
///
/// # Errors
///
/// It could not be started.
pub fn serve(host: &str, port: u16, dir: &Path) -> Result<Daemon> {
    start(command(Some(host), "nginx"), host, port, dir, "")
}

/// Starts nginx by `nginx`, its command without arguments; its page names `host`, and its server has
/// `more` beside it.
///
/// # Errors
///
/// It could not be started.
pub fn start(mut nginx: Command, host: &str, port: u16, dir: &Path, more: &str) -> Result<Daemon> {
    let config = dir.join(format!("{host}.nginx.conf"));
    let errors = dir.join(format!("{host}.nginx.log"));
    fs::write(&config, configuration(host, port, dir, more))?;
    nginx.arg("-e").arg(errors).arg("-c").arg(config);
    Daemon::start(&format!("{host}.nginx"), nginx, dir)
}

/// The folder that nginx on `host`, started in `dir`, serves as `/files/` and takes uploads to.
#[must_use]
pub fn folder(host: &str, dir: &Path) -> PathBuf {
    dir.join(format!("{host}.www"))
}

fn configuration(host: &str, port: u16, dir: &Path, more: &str) -> String {
    let dir = dir.display();
    // One process: a worker of its own would outlive a killed master.
    format!(
        "daemon off; master_process off; pid {dir}/{host}.nginx.pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         \x20 access_log off; default_type text/plain;\n\
         \x20 server {{\n\
         \x20   listen {port}; listen [::]:{port};\n\
         \x20   {more}\n\
         \x20   location /files/ {{\n\
         \x20     alias {dir}/{host}.www/; dav_methods PUT; client_max_body_size 0;\n\
         \x20     client_body_temp_path {dir}/{host}.body;\n\
         \x20   }}\n\
         \x20   location / {{ return 200 \"{host} $remote_addr \"; }}\n\
         \x20 }}\n\
         }}\n"
    )
}

/// Waits until something on `host` accepts connections to `port`, over both families.
///
/// # Errors
///
/// Not in time.
pub fn wait_until_served(host: &str, port: u16, limits: &Limits) -> Result<()> {
    // The kernel's own list of sockets, so that nothing is asked and no log has it.
    let listening = format!(":{port:04X} ");
    limits.wait(&format!("nginx on {host}"), Duration::from_mins(1), || {
        let mut cat = command(Some(host), "cat");
        let sockets = crate::process::run(cat.args(["/proc/net/tcp", "/proc/net/tcp6"]))?;
        // Column 4 is the state; 0A is LISTEN.
        let found = sockets.lines().filter(|line| line.contains(&listening));
        let found = found.filter(|line| line.split_whitespace().nth(3) == Some("0A"));
        Ok((found.count() >= 2).then_some(()))
    })
}

/// What the client got.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answers {
    /// How many answers each server gave.
    pub by_server: BTreeMap<String, u64>,
    /// Answers with another status than 200, or that are not a server's page.
    pub wrong: Vec<String>,
    /// Requests that did not have one new connection of their own.
    pub shared: u64,
    /// Answers whose server saw another client address than the client's own.
    pub disguised: u64,
    /// What curl complained about.
    pub complaints: String,
}

impl Answers {
    /// How many right answers there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_server.values().sum()
    }
}

/// Lets `curl`, its command without arguments, ask `vip` `requests` times, one after another.
///
/// # Errors
///
/// curl could not be started or does not end.
pub fn ask(
    mut curl: Command,
    client: IpAddr,
    vip: SocketAddr,
    requests: u32,
    dir: &Path,
    limits: &Limits,
) -> Result<Answers> {
    ensure!(requests > 0, "no requests");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--header", "Connection: close"]);
    curl.args(["--connect-timeout", "10", "--max-time", "30", "--fail-early"]);
    curl.args(["--write-out", AFTER_PAGE]).arg(format!("http://{vip}/?[1-{requests}]"));
    let mut asking = Daemon::start("curl", curl, dir)?;
    asking.wait(Duration::from_mins(5), limits).context("curl")?;
    let mut answers = parse(&asking.output(), client);
    asking.errors().trim().clone_into(&mut answers.complaints);
    Ok(answers)
}

/// Reads lines of the form `SERVER CLIENT-SEEN STATUS CONNECTIONS`.
#[must_use]
pub fn parse(output: &str, client: IpAddr) -> Answers {
    let mut answers = Answers::default();
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [server, seen, "200", connections] = words[..] else {
            answers.wrong.push(line.to_owned());
            continue;
        };
        *answers.by_server.entry(server.to_owned()).or_default() += 1;
        answers.shared += u64::from(connections != "1");
        answers.disguised += u64::from(seen.parse() != Ok(client));
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "198.51.100.7";

    #[test]
    fn answers_are_counted_by_server() {
        let output = "rs1 198.51.100.7 200 1\nrs2 198.51.100.7 200 1\nrs1 198.51.100.7 200 1\n";
        let answers = parse(output, CLIENT.parse().unwrap());
        assert_eq!(answers.by_server, BTreeMap::from([("rs1".into(), 2), ("rs2".into(), 1)]));
        assert_eq!((answers.total(), answers.shared, answers.disguised), (3, 0, 0));
    }

    #[test]
    fn errors_shared_connections_and_wrong_clients_are_told_apart() {
        let output = "rs1 198.51.100.7 200 0\nrs1 203.0.113.9 200 1\nnginx 404 1\n000 1\n";
        let answers = parse(output, CLIENT.parse().unwrap());
        assert_eq!((answers.total(), answers.shared, answers.disguised), (2, 1, 1));
        assert_eq!(answers.wrong, ["nginx 404 1", "000 1"]);
    }
}

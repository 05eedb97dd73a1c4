//! A command line, carried out.

use crate::args::{Line, Stop};
use crate::json;
use crate::names::Names;
use crate::option::{Command, Opt, Options};
use crate::print::Printer;
use crate::transport::Transport;
use crate::usage;
use rvs_api::words::{self, Operation};
use rvs_api::{ClientError, ConnFilter, Outcome, Reply, Request};
use std::io::{BufRead, ErrorKind, Write};

/// What the system calls make of the -1 that ipvsadm returns.
pub(crate) const FAILED: i32 = 255;

/// Whether a program has ipvsadm's name. By that nothing is taken that ipvsadm does not take.
pub(crate) fn is_ipvsadm(program: &str) -> bool {
    program.rsplit('/').next() == Some("ipvsadm")
}

/// Listings for programs.
const JSON: &str = "--json";

/// Whether a command, by its first word, has an output for programs.
fn can_be_json(word: &str) -> bool {
    let is_list = word.starts_with("-L") || word.starts_with("-l") || word == "--list";
    is_list || word == "tunable"
}

/// Changes that `-R` gathers before it sends them.
const BATCH: usize = 16_384;

/// Does what `argv` says, as ipvsadm 1.31 would, and returns the exit status. `argv[0]` is the name
/// that help speaks of; `stdin` is what `-R` reads.
pub fn run(
    argv: &[String],
    stdin: &mut dyn BufRead,
    transport: &mut dyn Transport,
    names: &dyn Names,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> i32 {
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let program = argv.first().copied().unwrap_or_default();
    // ipvsadm has no such option.
    let json = !is_ipvsadm(program) && argv.contains(&JSON);
    let argv: Vec<&str> = argv.into_iter().filter(|word| !json || *word != JSON).collect();
    let mut session = Session {
        program,
        transport,
        names,
        out,
        err,
        line: 0,
        pending: Vec::new(),
        pending_lines: Vec::new(),
        status: 0,
        unwritten: None,
        json,
    };
    let words = argv.get(1..).unwrap_or_default();
    let done = if json && words.first().is_some_and(|word| !can_be_json(word)) {
        session.tell_err("--json goes with -L and tunable\n");
        Err(Exit(2))
    } else if words.is_empty() {
        session.list_all(Options::default(), false)
    } else {
        session.own(words, stdin).unwrap_or_else(|| session.command_line(&argv, stdin))
    };
    let status = match done {
        Ok(()) => session.status,
        Err(Exit(status)) => status,
    };
    session.end(status)
}

/// The program ends here.
pub(crate) struct Exit(pub(crate) i32);

pub(crate) struct Session<'a> {
    pub(crate) program: &'a str,
    transport: &'a mut dyn Transport,
    pub(crate) names: &'a dyn Names,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// The line of `-R` that is read, if faults are to name it; else 0.
    line: u32,
    /// Changes that were read and not sent yet. They are before anything that is told or listed.
    pending: Vec<Request>,
    /// Their lines.
    pending_lines: Vec<u32>,
    /// What the last line came to: the program's status, if it ends by itself.
    status: i32,
    /// Why something was not told.
    unwritten: Option<std::io::Error>,
    pub(crate) json: bool,
}

impl Session<'_> {
    fn command_line(&mut self, argv: &[&str], stdin: &mut dyn BufRead) -> Result<(), Exit> {
        match self.line(argv)? {
            None => self.send_pending(),
            Some(line) if line.command == Command::Restore => self.restore(stdin),
            Some(line) => self.list(&line),
        }
    }

    /// Reads a line; if it is a change it is pending then, else it is handed back.
    fn line(&mut self, argv: &[&str]) -> Result<Option<Line>, Exit> {
        let line = match Line::read(argv, self.names) {
            Ok(line) => line,
            Err(stop) => return self.stop(stop).map(|()| None),
        };
        if let Some(request) = change(&line) {
            self.pending.push(request);
            self.pending_lines.push(self.line);
            return Ok(None);
        }
        self.send_pending()?;
        Ok(Some(line))
    }

    pub(crate) fn stop(&mut self, stop: Stop) -> Result<(), Exit> {
        self.send_pending()?;
        match stop {
            Stop::Exit(status, text) => {
                self.tell_err(&format!("{}{text}", place(self.line)));
                Err(Exit(if status < 0 { FAILED } else { status }))
            }
            Stop::Tell(text) => {
                self.tell(&text);
                Err(Exit(0))
            }
            Stop::GiveUp(text) => {
                self.tell_err(&format!("{}{text}", place(self.line)));
                self.status = FAILED;
                Ok(())
            }
        }
    }

    /// One line of stdin after the other. Changes are gathered as long as input is at hand, and
    /// sent before there is a wait for more, so that a program that writes line by line has its
    /// changes made line by line.
    fn restore(&mut self, stdin: &mut dyn BufRead) -> Result<(), Exit> {
        let mut text = Vec::new();
        loop {
            let read = match stdin.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) if is_ipvsadm(self.program) => &[],
                Err(error) => {
                    self.tell_err(&format!("standard input: {error}\n"));
                    return Err(Exit(1));
                }
            };
            let len = read.len();
            text.extend_from_slice(read);
            stdin.consume(len);
            let at_end = len == 0;
            let whole = match text.iter().rposition(|octet| *octet == b'\n') {
                _ if at_end => text.len(),
                Some(last) => last.saturating_add(1),
                None => 0,
            };
            let rest = text.split_off(whole);
            for line in text.split_inclusive(|octet| *octet == b'\n') {
                // ipvsadm does not tell.
                self.line += u32::from(!is_ipvsadm(self.program));
                self.restore_line(line)?;
            }
            text = rest;
            self.send_pending()?;
            if at_end {
                return Ok(());
            }
        }
    }

    fn restore_line(&mut self, line: &[u8]) -> Result<(), Exit> {
        let line = String::from_utf8_lossy(line);
        // The name of the program may stand in front, or anywhere.
        let words =
            line.split([' ', '\t', '\r', '\n']).filter(|word| !matches!(*word, "" | "ipvsadm"));
        let argv: Vec<&str> = core::iter::once(self.program).chain(words).collect();
        if argv.len() <= 1 {
            return Ok(());
        }
        match self.line(&argv)? {
            None if self.pending.len() < BATCH => Ok(()),
            None => self.send_pending(),
            Some(line) if line.command == Command::Restore => {
                self.stop(Stop::Exit(-1, usage::try_help(self.program)))
            }
            Some(line) => self.list(&line),
        }
    }

    fn send_pending(&mut self) -> Result<(), Exit> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let requests = core::mem::take(&mut self.pending);
        let lines = core::mem::take(&mut self.pending_lines);
        let outcomes = self.ask(&requests)?;
        for ((request, line), outcome) in requests.iter().zip(lines).zip(outcomes) {
            self.status = match outcome {
                Ok(_) => 0,
                Err(refusal) => {
                    let text = words::text(request.into(), &refusal);
                    self.tell_err(&format!("{}{text}\n", place(line)));
                    FAILED
                }
            };
        }
        Ok(())
    }

    fn list(&mut self, line: &Line) -> Result<(), Exit> {
        let options = line.options;
        let request = if line.command == Command::Save {
            return self.list_all(options, true);
        } else if options.has(Opt::Connection) {
            match line.conn_filter() {
                all if all == ConnFilter::default() => Request::ListConns,
                some => Request::ListConnsWhere(some),
            }
        } else if options.has(Opt::Service) {
            Request::ListServices { service: Some(line.key()) }
        } else if options.has(Opt::Timeout) {
            Request::GetTimeouts
        } else if options.has(Opt::Daemon) {
            Request::ListDaemons
        } else {
            return self.list_all(options, false);
        };
        let reply = self.fetch(&request)?;
        if self.json {
            self.tell(&json::text(json::Head::default(), options, &reply));
        } else {
            self.print(options, false, &reply);
        }
        Ok(())
    }

    fn list_all(&mut self, options: Options, as_rules: bool) -> Result<(), Exit> {
        if self.json {
            let info = self.fetch(&Request::GetInfo)?;
            let Reply::Info(info) = info else { return Err(Exit(FAILED)) };
            let services = self.fetch(&Request::ListServices { service: None })?;
            self.tell(&json::text(json::Head::from(&info), options, &services));
            return Ok(());
        }
        if !as_rules {
            let info = self.fetch(&Request::GetInfo)?;
            self.print(options, false, &info);
        }
        let services = self.fetch(&Request::ListServices { service: None })?;
        self.print(options, as_rules, &services);
        Ok(())
    }

    fn print(&mut self, options: Options, as_rules: bool, reply: &Reply) {
        let mut printer = Printer::new(options, as_rules, self.names);
        match reply {
            Reply::Info(info) => printer.header(info),
            Reply::Services(entries) => printer.services(entries),
            Reply::Conns(entries) => printer.conns(entries),
            Reply::Timeouts(timeouts) => printer.timeouts(*timeouts),
            Reply::Daemons(daemons) => printer.daemons(daemons),
            Reply::Done | Reply::Tunables(_) | Reply::Changes(_) => {}
        }
        self.tell(&printer.into_text());
        self.status = 0;
    }

    /// Asks for a listing; a refusal ends the program.
    pub(crate) fn fetch(&mut self, request: &Request) -> Result<Reply, Exit> {
        let outcome = self.ask(core::slice::from_ref(request))?.pop();
        match outcome.unwrap_or(Ok(Reply::Done)) {
            Ok(reply) => Ok(reply),
            Err(refusal) => {
                self.tell_err(&format!("{}\n", words::text(Operation::from(request), &refusal)));
                Err(Exit(1))
            }
        }
    }

    pub(crate) fn ask(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, Exit> {
        let asked: Result<_, ClientError> = self.transport.batch(requests);
        asked.map_err(|error| {
            self.tell_err(&format!("Can't initialize ipvs: {error}\n"));
            Exit(2)
        })
    }

    pub(crate) fn tell(&mut self, text: &str) {
        if let Err(error) = self.out.write_all(text.as_bytes()) {
            self.unwritten.get_or_insert(error);
        }
    }

    /// Sees to it that all was told. Who does not listen any more need not be; but rules that are saved on
    /// a full disk are not saved, which ipvsadm does not say.
    fn end(&mut self, status: i32) -> i32 {
        let flushed = self.out.flush();
        match self.unwritten.take().map_or(flushed, Err) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe && !is_ipvsadm(self.program) => {
                self.tell_err(&format!("standard output: {error}\n"));
                if status == 0 { 1 } else { status }
            }
            _ => status,
        }
    }

    /// Shows what was told so far.
    pub(crate) fn flush(&mut self) {
        let _ = self.out.flush();
    }

    pub(crate) fn tell_err(&mut self, text: &str) {
        let _ = self.err.write_all(text.as_bytes());
    }
}

/// What stands before a fault of a line of `-R`.
fn place(line: u32) -> String {
    if line == 0 { String::new() } else { format!("line {line}: ") }
}

/// What a line changes, if it changes something.
fn change(line: &Line) -> Option<Request> {
    let service = line.key();
    Some(match line.command {
        Command::AddService => {
            Request::AddService { service, attributes: line.service_attributes() }
        }
        Command::EditService => {
            Request::EditService { service, attributes: line.service_attributes() }
        }
        Command::DeleteService => Request::DeleteService { service },
        Command::Flush => Request::Flush,
        Command::AddDest => {
            Request::AddDest { service, dest: line.dest(), attributes: line.dest_attributes() }
        }
        Command::EditDest => {
            Request::EditDest { service, dest: line.dest(), attributes: line.dest_attributes() }
        }
        Command::DeleteDest => Request::DeleteDest { service, dest: line.dest() },
        Command::Zero => Request::Zero { service: line.key_if_any() },
        Command::SetTimeouts => Request::SetTimeouts(line.timeouts()),
        Command::StartDaemon => Request::StartDaemon(line.daemon()),
        Command::StopDaemon => Request::StopDaemon(line.daemon().state),
        Command::List | Command::Save | Command::Restore => return None,
    })
}

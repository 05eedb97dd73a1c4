//! Programs that are linked statically under `rvs-run --seccomp`, and programs with threads, children
//! and epoll under the preloaded library, with a table of rvsd's behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod bench;

use bench::{Bench, assert_well, assert_well_alone};
use std::path::Path;
use std::process::Command;

#[test]
fn a_static_program_reaches_rvsd_and_other_families_stay_the_kernels() {
    let bench = Bench::served("static");
    let client = bench.client(&["-static", "-DBARE"]);
    for what in ["asks", "old", "forks", "threads", "polls"] {
        assert_well(what, &bench.seccomp(&client, &[what]));
    }
    // What the C library does beneath is the same.
    let client = bench.client(&["-static"]);
    assert_well("asks", &bench.seccomp(&client, &["asks"]));
}

#[test]
fn a_static_program_reads_and_writes_the_kernels_files() {
    let bench = Bench::served("files");
    let client = bench.client(&["-static", "-DBARE"]);
    let output = bench.seccomp(&client, &["reads", "/proc/net/ip_vs"]);
    assert_well("ip_vs", &output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("IP Virtual Server version 1.2.1 (size=4096)\n"), "{text}");
    let sysctl = "/proc/sys/net/ipv4/vs/sloppy_tcp";
    assert_eq!(bench.sloppy_tcp(), "0");
    assert_well("writes", &bench.seccomp(&client, &["writes", sysctl, "1"]));
    let output = bench.seccomp(&client, &["reads", sysctl]);
    assert_eq!((bench.sloppy_tcp().as_str(), output.stdout.as_slice()), ("1", &b"1\n"[..]));
    let own = bench.seccomp(&client, &["reads", "/proc/self/comm"]);
    assert_eq!(own.stdout, b"client\n", "other files are the kernel's");
}

#[test]
fn without_rvsd_there_is_no_ipvs_and_the_programs_exit_code_is_the_wrappers() {
    let bench = Bench::new("absent");
    let client = bench.client(&["-static", "-DBARE"]);
    assert_well_alone("absent", &bench.seccomp(&client, &["absent"]));
    assert_eq!(bench.seccomp(&client, &["nonsense"]).status.code(), Some(2));
    assert_eq!(bench.seccomp(&client, &["reads", "/proc/net/ip_vs"]).status.code(), Some(1));
    assert_eq!(bench.seccomp(Path::new("/nowhere"), &[]).status.code(), Some(127));
}

/// What a program that is there on every Debian wrote, under the library.
#[track_caller]
fn written(bench: &Bench, program: &str, words: &[&str]) -> String {
    let output = bench.preloaded(Path::new(program), words);
    assert_well(program, &output);
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of rvsd's sysctls in what sysctl(8) writes.
fn sysctls(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("net.ipv4.vs.")).collect()
}

#[test]
fn sysctl_lists_and_sets_what_rvsd_answers_for() {
    let bench = Bench::served("sysctl");
    // It complains about files of the kernel's that root may not read either.
    let all = bench.preloaded(Path::new("sysctl"), &["-a"]);
    let all = String::from_utf8(all.stdout).unwrap();
    assert_eq!(sysctls(&all).len(), bench.sysctls(), "{all}");
    assert!(all.contains("kernel.ostype = Linux"), "the kernel's are there too");
    let some = written(&bench, "sysctl", &["-a", "--pattern", "^net.ipv4.vs.sloppy"]);
    assert_eq!(some, "net.ipv4.vs.sloppy_sctp = 0\nnet.ipv4.vs.sloppy_tcp = 0\n");
    let set = written(&bench, "sysctl", &["-w", "net.ipv4.vs.sloppy_tcp=1"]);
    assert_eq!((set.as_str(), bench.sloppy_tcp().as_str()), ("net.ipv4.vs.sloppy_tcp = 1\n", "1"));
    assert_eq!(written(&bench, "sysctl", &["-n", "net/ipv4/vs/sloppy_tcp"]), "1\n");
}

#[test]
fn folders_show_rvsds_names_beside_the_kernels() {
    let bench = Bench::served("folders");
    let names = written(&bench, "ls", &["/proc/sys/net/ipv4/vs/"]);
    assert_eq!(names.lines().count(), bench.sysctls());
    assert!(names.lines().any(|name| name == "sloppy_tcp"), "{names}");
    let folder = written(&bench, "ls", &["-l", "/proc/sys/net/ipv4/vs"]);
    assert!(
        folder.lines().any(|line| line.starts_with("-rw-r--r--") && line.ends_with("sloppy_tcp"))
    );
    assert!(written(&bench, "ls", &["-ld", "/proc/sys/net/ipv4/vs"]).starts_with("dr-xr-xr-x"));
    let above = written(&bench, "ls", &["/proc/sys/net/ipv4"]);
    assert!(above.lines().any(|name| name == "vs") && above.lines().any(|name| name == "conf"));
    assert_eq!(above.lines().filter(|name| *name == "vs").count(), 1);

    let script = "echo /proc/net/ip_vs* /proc/sys/net/ipv4/vs/sloppy_*; \
                  for it in -e -r -f; do [ $it /proc/net/ip_vs ] || echo no $it; done; \
                  [ -d /proc/sys/net/ipv4/vs/ ] && [ ! -e /proc/sys/net/ipv4/vs/none ] || echo no; \
                  cat /proc/sys//net/ipv4/./vs/sloppy_tcp";
    let told = written(&bench, "bash", &["-c", script]);
    assert_eq!(
        told,
        "/proc/net/ip_vs /proc/net/ip_vs_conn /proc/net/ip_vs_conn_sync /proc/net/ip_vs_stats \
         /proc/sys/net/ipv4/vs/sloppy_sctp /proc/sys/net/ipv4/vs/sloppy_tcp\n0\n"
    );
    let all = written(&bench, "cat", &["/proc/1/net/ip_vs", "/proc/net/ip_vs_stats"]);
    assert!(all.contains("Prot LocalAddress:Port") && all.contains("Conns/s"), "{all}");
}

#[test]
fn programs_that_walk_by_descriptors_find_rvsds_names() {
    let bench = Bench::served("walks");
    let folder = "/proc/sys/net/ipv4/vs";
    let found = written(&bench, "find", &["/proc/net/", "-maxdepth", "1", "-name", "ip_vs*"]);
    assert_eq!(found.lines().count(), 4, "{found}");
    let found = written(&bench, "find", &["/proc/sys/net", "-path", "*/vs/*"]);
    assert_eq!(found.lines().count(), bench.sysctls(), "{found}");
    assert!(found.lines().any(|line| line == "/proc/sys/net/ipv4/vs/sloppy_tcp"), "{found}");
    let found = written(&bench, "find", &[folder, "-type", "f", "-perm", "644", "-name", "*tcp"]);
    assert!(found.contains("/vs/sloppy_tcp\n") && !found.contains("sctp"), "{found}");
    let values = written(&bench, "grep", &["-r", ".", folder]);
    // All but est_cpulist, which is empty.
    assert_eq!(values.lines().count() + 1, bench.sysctls(), "{values}");
    assert!(values.contains("/proc/sys/net/ipv4/vs/sloppy_tcp:0\n"), "{values}");
    // Copies are made of what is open, if that is what the path named.
    let copy = bench.folder.join("copy");
    written(&bench, "cp", &["-r", folder, copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(copy.join("sloppy_tcp")).unwrap(), b"0\n");
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), bench.sysctls());
    written(&bench, "cp", &["/proc/net/ip_vs", copy.to_str().unwrap()]);
    assert!(std::fs::read(copy.join("ip_vs")).unwrap().starts_with(b"IP Virtual Server"));
    // A folder of the kernel's stays one, in the same program too.
    let both = written(&bench, "find", &[folder, "/proc/sys/net/ipv4/neigh", "-maxdepth", "1"]);
    assert!(both.contains("/neigh/default\n") && both.contains("/vs/sloppy_tcp\n"), "{both}");
    assert_eq!(both.lines().filter(|line| line.contains("default")).count(), 1, "{both}");
}

#[test]
fn a_path_is_seen_from_the_working_folder() {
    let bench = Bench::served("relative");
    let script = "cd /proc/net && cat ip_vs | head -n 1; cd /proc/sys/net; cat ipv4/vs/sloppy_tcp; \
                  echo 1 > ./ipv4/vs/sloppy_tcp; cat ../net/core/somaxconn; ls ipv4/vs | wc -l; \
                  cd /; cat proc/sys/net/ipv4/vs/sloppy_tcp; \
                  cd /tmp; cat ip_vs; true";
    let output = bench.preloaded(Path::new("bash"), &["-c", script]);
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.first(), Some(&"IP Virtual Server version 1.2.1 (size=4096)"), "{told}");
    let count = bench.sysctls().to_string();
    assert_eq!((lines.get(1), lines.get(3)), (Some(&"0"), Some(&count.as_str())), "{told}");
    assert_eq!(lines.get(4), Some(&"1"), "{told}");
    assert_eq!(bench.sloppy_tcp(), "1");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "cat: ip_vs: No such file or directory\n");
}

#[test]
fn streams_of_folders_are_read_again_and_patterns_expanded() {
    let bench = Bench::served("streams");
    let client = bench.client(&[]);
    for what in ["lists", "globs"] {
        assert_well(what, &bench.preloaded(&client, &[what]));
    }
}

#[test]
fn however_a_program_speaks_and_opens_it_reaches_rvsd() {
    let bench = Bench::served("ways");
    let client = bench.client(&[]);
    for what in ["splits", "copies", "paths"] {
        assert_well(what, &bench.preloaded(&client, &[what]));
    }
    assert_eq!(bench.sloppy_tcp(), "1");
}

#[test]
fn without_rvsd_nothing_reaches_the_kernels_ipvs_and_no_descriptor_is_lost() {
    let bench = Bench::new("nobody");
    let client = bench.client(&[]);
    for what in ["runs out", "returns"] {
        assert_well_alone(what, &bench.preloaded(&client, &[what]));
    }
}

#[test]
fn without_rvsd_folders_are_the_kernels() {
    let bench = Bench::new("kernels");
    let output = bench.preloaded(Path::new("ls"), &["/proc/sys/net/ipv4"]);
    assert_well_alone("ls", &output);
    let above = String::from_utf8(output.stdout).unwrap();
    assert!(above.lines().any(|name| name == "conf") && above.lines().all(|name| name != "vs"));
    let output = bench.preloaded(Path::new("ls"), &["/proc/sys/net/ipv4/vs"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("No such file or directory"), "{told}");
}

#[test]
fn who_forgot_rvsd_is_told_where_it_was_looked_for() {
    let bench = Bench::new("forgotten");
    let output = bench.preloaded(Path::new("true"), &[]);
    let expected = format!(
        "rvs-run: no rvsd at {}: No such file or directory (os error 2)\n",
        bench.folder.join("netlink").display()
    );
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), expected.as_bytes()));
    let served = Bench::served("there");
    assert_eq!(served.preloaded(Path::new("true"), &[]).stderr, b"");
}

#[test]
fn what_would_run_without_the_library_is_refused_with_one_line() {
    let bench = Bench::new("refused");
    let client = bench.client(&["-static"]);
    let output = bench.preloaded(&client, &["asks"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(126) && told.lines().count() == 1, "{told}");
    assert!(told.contains("linked statically") && told.contains("--seccomp"), "{told}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-run"));
    let output = bench.run(command.env("RVS_PRELOAD", "/nowhere.so").args(["ipvsadm", "-Ln"]));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        told,
        "rvs-run: RVS_PRELOAD names /nowhere.so: No such file or directory (os error 2)\n"
    );
    assert_eq!(output.status.code(), Some(127));
    let output = bench.preloaded(Path::new("--secomp"), &["ipvsadm"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "rvs-run: --secomp: unknown option, expected --seccomp or a program\n");
}

#[test]
fn threads_children_and_epoll_find_rvsd_through_the_library() {
    let bench = Bench::served("dynamic");
    let client = bench.client(&[]);
    for what in ["asks", "old", "forks", "threads", "polls"] {
        assert_well(what, &bench.preloaded(&client, &[what]));
    }
}

#[test]
fn a_connection_is_given_on_when_it_is_as_good_as_a_new_one() {
    let bench = Bench::served("kept");
    let client = bench.client(&[]);
    let all = [("repeats", 1), ("resolves", 1), ("leaves", 51), ("inherits", 2), ("overlaps", 2)];
    // Only root may be of another group.
    let is_root = rustix::process::geteuid().is_root();
    for (what, connections) in all.into_iter().chain(is_root.then_some(("regroups", 2))) {
        let before = bench.connections();
        assert_well(what, &bench.preloaded(&client, &[what]));
        // One is rvs-run's, which looks whether anybody is there.
        assert_eq!(bench.connections() - before, connections + 1, "{what}");
    }
}

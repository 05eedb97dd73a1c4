//! `librvs_preload.so`: lets unmodified programs reach rvsd where they look for the kernel's IPVS.
//!
//! ```text
//!  ipvsadm, keepalived
//!    │ sendmsg: "IPVS"?            no ──► the kernel, as ever
//!    │                             yes ─► rvsd's netlink socket, put in place of the program's own
//!    │ open: /proc/net/ip_vs*,
//!    │       /proc/sys/net/ipv4/vs/*  ──► rvsd, over the same socket
//!    └ modprobe ip_vs, sockopts of IPVS ─► nowhere: a kernel's IPVS is never reached by mistake
//! ```
//!
//! A netlink socket is the program's own until the message in which it asks for the family "IPVS", or
//! speaks to the number that rvsd gives that family; then a connection to rvsd takes its place under
//! the same descriptor. Everything else is untouched: other families, other sockets, other files.
//!
//! When rvsd goes away a client gets an error and not silence: keepalived would wait for silence to end
//! with all its might, and with all its health checks waiting too. When rvsd is back the next request
//! reaches it.
//!
//! Every function of the C library that is replaced here is in `hooks`, `file_hooks` and
//! `folder_hooks`, which turn what C passes into what Rust can check; what they do is in `swap` and
//! `ask`.

mod ask;
mod awake;
mod file_hooks;
mod folder_hooks;
mod folders;
mod hooks;
mod kept;
mod next;
mod swap;
mod wire;

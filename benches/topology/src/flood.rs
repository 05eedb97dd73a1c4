//! Small datagrams as fast as they go, from a few clients' ports, and a sink for them.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

/// Clients' ports.
const FLOWS: usize = 64;
/// As many octets as make the shortest frame.
const PAYLOAD: [u8; 18] = [0; 18];
/// Datagrams of one flow at a time.
const RUN: usize = 16;

/// Sends for so long and says how many.
pub fn send(to: SocketAddr, seconds: u32) -> Result<()> {
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        flows.push(socket);
    }
    let (start, most) = (Instant::now(), Duration::from_secs(seconds.into()));
    let mut sent = 0_u64;
    while start.elapsed() < most {
        for flow in &flows {
            for _ in 0..RUN {
                // A full queue is the device's; it is not to be waited for.
                sent += u64::from(flow.send(&PAYLOAD).is_ok());
            }
        }
    }
    println!("{}", json!({ "sent": sent, "seconds": start.elapsed().as_secs_f64() }));
    Ok(())
}

/// Takes datagrams and forgets them, until it is killed.
pub fn sink(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at)?;
    let mut octets = [0; 64];
    loop {
        let _refused = socket.recv(&mut octets);
    }
}

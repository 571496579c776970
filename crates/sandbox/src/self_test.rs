//! Tries, from inside the sandbox, actions that the confinement must prevent.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    num::NonZero,
    time::Duration,
};

use rustix::{
    net::{AddressFamily, Protocol, SocketType, socket},
    thread::UnshareFlags,
};

use crate::{proxy, sys};

/// How long a forbidden connection may take to fail.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How long the proxy may take to answer on a busy machine.
const PROXY_TIMEOUT: Duration = Duration::from_secs(10);

/// The netlink protocol for kernel events (`NETLINK_KOBJECT_UEVENT`), which any user may receive
/// but no command needs.
const EVENTS: u32 = 15;

/// Tries forbidden actions and describes those that succeed. Also sends a UDP packet to port `udp`,
/// whose owner checks whether it arrives.
pub(crate) fn attempt(write: &OsStr, read: &OsStr, tcp: u16, udp: u16, filtered: bool) -> Vec<String> {
    let mut violations = Vec::new();
    if File::create(write).is_ok() {
        violations.push("a file outside the work tree could be written".to_owned());
    }
    if fs::read(read).is_ok() {
        violations.push("a file outside the work tree could be read".to_owned());
    }
    if TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, tcp)), TIMEOUT).is_ok() {
        violations.push("a TCP connection out of the sandbox succeeded".to_owned());
    }
    if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
        let _ = socket.send_to(b"escaped", (Ipv4Addr::LOCALHOST, udp));
    }
    if filtered && sys::unshare(UnshareFlags::NEWUSER).is_ok() {
        violations.push("a user namespace could be created".to_owned());
    }
    if filtered
        && socket(AddressFamily::NETLINK, SocketType::RAW, NonZero::new(EVENTS).map(Protocol::from_raw))
            .is_ok()
    {
        violations.push("a socket for kernel events could be created".to_owned());
    }
    violations
}

/// Asks the proxy to connect to a server on this machine, which it must refuse. Returns the
/// problem, if any.
pub(crate) fn attempt_proxy(tcp: u16) -> Option<String> {
    let ask = || -> std::io::Result<String> {
        let mut proxy = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy::PORT))?;
        proxy.set_read_timeout(Some(PROXY_TIMEOUT))?;
        write!(proxy, "CONNECT 127.0.0.1:{tcp} HTTP/1.1\r\n\r\n")?;
        let mut answer = String::new();
        proxy.take(64).read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 403 ") => None,
        Ok(_) => Some("the proxy connects to hosts that are not allowed".to_owned()),
        Err(e) => Some(format!("the proxy does not work: {e}")),
    }
}

//! Parses the head of a request to the proxy. The parser is strict, because a request that two
//! parsers interpret differently can bypass one parser's checks.

use std::fmt::Write;

use crate::hosts::Target;

/// The maximum length of a head, in bytes.
pub(crate) const MAX_HEAD: usize = 32 << 10;

/// The maximum number of fields in a head.
const MAX_FIELDS: usize = 100;

/// A parsed request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) port: u16,
    pub(crate) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The proxy relays bytes in both directions.
    Tunnel,
    /// The proxy forwards one request, with this head and a body of this many bytes.
    Plain { head: String, body: u64 },
}

/// Returns the offset where the head ends, after its empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Parses a head.
///
/// # Errors
/// Describes what is wrong with the head, for the client's author.
pub(crate) fn parse(head: &[u8]) -> Result<Request, &'static str> {
    let head = std::str::from_utf8(head).map_err(|_| "the request is not valid UTF-8")?;
    let head = head.strip_suffix("\r\n\r\n").ok_or("the request is incomplete")?;
    if head.split("\r\n").any(|line| line.contains(['\r', '\n', '\0'])) {
        return Err("a line of the request contains a bare CR or LF, or a NUL byte");
    }
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the first line is not an HTTP/1 request");
    };
    let fields: Vec<_> = lines.map(field).collect::<Option<_>>().ok_or("a header field is malformed")?;
    if !is_token(method) || fields.len() > MAX_FIELDS {
        return Err("the request is malformed");
    }
    let only = |name: &str| {
        let mut values = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err("a header field is duplicated"),
        }
    };
    let (host, length) = (only("host")?, only("content-length")?);
    if only("transfer-encoding")?.is_some() {
        return Err("the length of the body must be given by Content-Length");
    }
    let body = match length {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| "Content-Length is not a number")?
        }
        Some(_) => return Err("Content-Length is not a number"),
        None => 0,
    };

    let (place, path) = if method == "CONNECT" {
        (target, None)
    } else {
        let rest = target
            .get(..7)
            .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
            .map(|_| &target[7..])
            .ok_or("this is a proxy: use http://HOST/PATH or CONNECT HOST:PORT")?;
        let path = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        (&rest[..path], Some(&rest[path..]))
    };
    let (name, port) = Target::with_port(place).ok_or("the request has no valid host")?;
    let default = path.map(|_| 80);
    let port = port.or(default).ok_or("the request has no port")?;
    if let Some(host) = host {
        let (name_in_host, port_in_host) = Target::with_port(host).ok_or("the Host field is invalid")?;
        if name_in_host != name || port_in_host.or(default).is_some_and(|its| its != port) {
            return Err("the request line and the Host field disagree about the host or port");
        }
    }
    let kind = match path {
        None if body != 0 => return Err("CONNECT has no body"),
        None => Kind::Tunnel,
        Some(path) => Kind::Plain { head: forwarded_head(method, place, path, &fields)?, body },
    };
    Ok(Request { target: name, port, kind })
}

/// Returns the head to send to the server, with a path instead of a URL and without the fields
/// meant for this proxy.
fn forwarded_head(
    method: &str,
    host: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<String, &'static str> {
    const OWN: &[&str] = &["host", "connection", "keep-alive", "te", "trailer", "upgrade"];
    if !path.bytes().all(|b| b.is_ascii_graphic()) || path.contains('#') {
        return Err("the path is malformed");
    }
    let named = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let named: Vec<_> = named.flat_map(|(_, value)| value.split(',')).map(str::trim).collect();
    let own = |name: &str| {
        let lower = name.to_ascii_lowercase();
        OWN.contains(&lower.as_str()) || lower.starts_with("proxy-")
            // Content-Length must stay, even if `Connection` lists it.
            || (lower != "content-length" && named.iter().any(|n| n.eq_ignore_ascii_case(name)))
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut head = format!("{method} {slash}{path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields.iter().filter(|(name, _)| !own(name)) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("Connection: close\r\n\r\n");
    Ok(head)
}

/// Returns a field's name and value. Rejects obsolete continuation lines, which start with a space.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let value = value.trim_matches([' ', '\t']);
    (is_token(name) && !value.chars().any(|c| c.is_control() && c != '\t')).then_some((name, value))
}

fn is_token(text: &str) -> bool {
    // RFC 9110, 5.6.2
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Changes the head of a response to say that the connection will be closed afterward.
pub(crate) fn closing(head: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 32);
    let lines = head.strip_suffix(b"\r\n\r\n").unwrap_or(head).split(|b| *b == b'\n');
    for line in lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        let name = line.split(|b| *b == b':').next().unwrap_or_default().to_ascii_lowercase();
        if name != b"connection" && name != b"keep-alive" && !name.starts_with(b"proxy-") {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"Connection: close\r\n\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Result<(String, u64), &'static str> {
        match parse(text.as_bytes())?.kind {
            Kind::Plain { head, body } => Ok((head, body)),
            Kind::Tunnel => Err("a tunnel"),
        }
    }

    #[test]
    fn a_tunnel_needs_host_and_port() {
        let request = parse(b"CONNECT Example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").unwrap();
        let target = Target::Name("example.org".into());
        assert_eq!(request, Request { target, port: 443, kind: Kind::Tunnel });
        for place in [
            "example.org",
            "http://example.org:443",
            ":443",
            "a@example.org:443",
            "example.org:443:443",
            "127.1:80",
        ] {
            assert!(parse(format!("CONNECT {place} HTTP/1.1\r\n\r\n").as_bytes()).is_err(), "{place}");
        }
    }

    #[test]
    fn a_plain_request_is_forwarded_without_proxy_fields() {
        let (head, body) = plain(
            "POST http://example.org:81?a HTTP/1.1\r\nhost: example.org:81\r\nProxy-Authorization: Basic x\r\nX-A: 1\r\n\
             Connection: x-b, keep-alive\r\nX-B: 2\r\nContent-Length: 3\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            head,
            "POST /?a HTTP/1.1\r\nHost: example.org:81\r\nX-A: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(body, 3);
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let get = "GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\n";
        assert!(plain(&format!("{get}\r\n")).is_ok());
        for more in [
            "Host: a.org\r\n",
            "Host: b.org\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "X: a\n b\r\n",
            " folded\r\n",
            "X: a\rHost: b.org\r\n",
            "X: a\0\r\n",
            "X\r\n",
        ] {
            assert!(plain(&format!("{get}{more}\r\n")).is_err(), "{more:?}");
        }
        for line in [
            "GET http://a.org/ HTTP/1.1\r\nHost: b.org",
            "GET http://a.org/ HTTP/1.1\r\nHost: a.org:81",
            "GET / HTTP/1.1\r\nHost: a.org",
            "GET https://a.org/ HTTP/1.1",
            "GET http://b.org@a.org/ HTTP/1.1",
            "GET http://a.org\\@b.org/ HTTP/1.1",
            "GET  http://a.org/ HTTP/1.1",
            "GET http://a.org/ HTTP/2.0",
            "GET http://a.org/\tHTTP/1.1",
            "G@T http://a.org/ HTTP/1.1",
            "CONNECT a.org:443 HTTP/1.1\r\nContent-Length: 3",
            "CONNECT a.org:443 HTTP/1.1\r\nHost: b.org:443",
            "CONNECT a.org:443 HTTP/1.1\r\nHost: a.org:22",
            "",
        ] {
            assert!(parse(format!("{line}\r\n\r\n").as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_response_says_that_the_connection_closes() {
        let head = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(closing(head), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
    }
}

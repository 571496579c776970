//! Parses the hosts that commands may reach through the proxy and matches connections against them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The ports that are allowed if a host does not specify one: HTTPS and HTTP.
const PORTS: [u16; 2] = [443, 80];

/// The maximum length of a DNS name (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// A host that commands may reach: `name`, `*.name` (every subdomain of `name`, but not `name`
/// itself) or an address, followed by `:port` for a port other than 443 and 80. An IPv6 address
/// with a port must be in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: Name,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Exactly(Target),
    /// Every subdomain. The string is the domain with a leading dot.
    Below(String),
}

/// The target of a connection: a lowercase name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    Name(String),
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a host: write NAME, *.NAME or an address, with :PORT unless the port is 443 or 80"
            )
        };
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { name: Name::Exactly(Target::Address(address.to_canonical())), port: None });
        }
        let (host, port) = split_port(text).ok_or_else(wrong)?;
        let name = match host.strip_prefix('*') {
            Some(below) => match below.strip_prefix('.').and_then(Target::parse) {
                // A pattern such as `*.org` is usually a mistake.
                Some(Target::Name(name)) if name.contains('.') => Name::Below(format!(".{name}")),
                _ => return Err(wrong()),
            },
            None => Name::Exactly(Target::parse(host).ok_or_else(wrong)?),
        };
        Ok(Self { name, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Exactly(target) => write!(f, "{target}")?,
            Name::Below(name) => write!(f, "*{name}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Host {
    /// Whether this host allows a connection to `port` on `target`.
    pub(crate) fn includes(&self, target: &Target, port: u16) -> bool {
        let here = match (&self.name, target) {
            (Name::Exactly(own), target) => own == target,
            (Name::Below(own), Target::Name(name)) => name.len() > own.len() && name.ends_with(own.as_str()),
            (Name::Below(_), Target::Address(_)) => false,
        };
        here && self.port.map_or(PORTS.contains(&port), |own| own == port)
    }

    /// Whether this is the host `name`, regardless of its port.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(&self.name, Name::Exactly(own) if Some(own) == Target::parse(name).as_ref())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl Target {
    /// Parses a name or an address in standard notation. Rejects `127.1`, `0x7f.0.0.1` and
    /// `2130706433`, which the system's resolver would accept as addresses.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-')
        };
        // Every spelling of an IPv4 address ends in a number. No name on the Internet does (RFC
        // 3696, section 2).
        let last = name.rsplit('.').next()?;
        let digits = last.strip_prefix("0x").unwrap_or(last);
        let number = digits.bytes().all(|b| b.is_ascii_digit()) || last.len() != digits.len();
        (name.len() <= MAX_NAME && name.split('.').all(label) && !number).then_some(Self::Name(name))
    }

    /// Parses a target with an optional port, as in a `CONNECT` request or a `Host` field.
    pub(crate) fn with_port(text: &str) -> Option<(Self, Option<u16>)> {
        let (host, port) = split_port(text)?;
        Some((Self::parse(host)?, port))
    }
}

/// Splits `HOST`, `HOST:PORT` or `[V6]:PORT`.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = text.rfind(':').filter(|at| text.rfind(']').is_none_or(|bracket| bracket < *at));
    let Some(at) = colon else { return Some((text, None)) };
    let digits = &text[at + 1..];
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = digits.parse().ok().filter(|port| plain && *port != 0)?;
    Some((&text[..at], Some(port)))
}

/// Whether an address is on the Internet, that is, not local, private or reserved.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            let parts = v6.segments();
            let embedded = |high: u16, low: u16| {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                is_public_v4(Ipv4Addr::new(a, b, c, d))
            };
            match parts {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64, RFC 6052
                [0x2002, high, low, ..] => embedded(high, low),               // 6to4, RFC 3056
                [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => false,       // Teredo and others, RFC 6890
                [first, ..] => first & 0xe000 == 0x2000, // all allocated addresses, RFC 4291
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    // Non-global special-purpose blocks from RFC 6890, and multicast.
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [100, 64..=127, ..]
            | [198, 18..=19, ..]
            | [192, 0, 0 | 2, _]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn includes(host: &str, place: &str) -> bool {
        let (target, port) = Target::with_port(place).unwrap();
        host.parse::<Host>().unwrap().includes(&target, port.unwrap())
    }

    #[test]
    fn a_host_without_a_port_matches_only_its_name_on_ports_443_and_80() {
        for place in ["example.org:443", "EXAMPLE.org:80", "example.org.:443"] {
            assert!(includes("example.org", place), "{place}");
        }
        for place in
            ["example.org:22", "www.example.org:443", "notexample.org:443", "example.org.evil.net:443"]
        {
            assert!(!includes("example.org", place), "{place}");
        }
        assert!(includes("example.org:8080", "example.org:8080"));
        assert!(!includes("example.org:8080", "example.org:443"));
    }

    #[test]
    fn a_star_matches_subdomains_only() {
        assert!(
            includes("*.example.org", "a.example.org:443") && includes("*.example.org", "a.b.example.org:80")
        );
        for place in ["example.org:443", "aexample.org:443", "a.example.org.evil.net:443", "1.2.3.4:443"] {
            assert!(!includes("*.example.org", place), "{place}");
        }
    }

    #[test]
    fn addresses_match_in_any_spelling() {
        assert!(includes("127.0.0.1:81", "127.0.0.1:81") && includes("[::1]:81", "[::1]:81"));
        assert!(includes("::1", "[0:0::1]:443") && includes("127.0.0.1", "[::ffff:127.0.0.1]:443"));
        assert!(!includes("localhost:81", "127.0.0.1:81"));
    }

    #[test]
    fn invalid_hosts_are_refused() {
        for text in [
            "",
            "*",
            "*.org",
            "a b",
            "https://example.org",
            "example.org/",
            "example.org:0",
            "example.org:x",
            "a..b",
            "127.1",
            "0x7f.1",
            "2130706433",
            "user@a.org",
            "*.1.2.3.4",
            "größe.de",
            "a.org:+80",
            "[::1",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
        for text in ["example.org", "*.example.org:8443", "[::1]:81", "10.0.0.5", "localhost:81"] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_internet_addresses_are_public() {
        for text in ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1::",
            "fec0::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }
}

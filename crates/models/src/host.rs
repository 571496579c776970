//! Turns the address of a model server, as entered by the user or set in `OLLAMA_HOST`, into a base
//! URL.
//!
//! All functions are pure. `OLLAMA_HOST` follows the rules of Ollama's own client
//! (docs/model-apis.md#ollama-address), so that the agent and that client reach the same server. An
//! address may contain credentials, as `user:password@` or in a query. Every request includes them;
//! [`shown`] removes them from an address before it is displayed or written to a journal.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

/// Ollama's default port.
const OLLAMA_PORT: &str = "11434";

/// Returns the base URL for a value of `OLLAMA_HOST`, without a trailing slash. Never fails: like
/// Ollama, it replaces an invalid port with the default one.
///
/// ```
/// use models::host::ollama_base;
/// assert_eq!(ollama_base(""), "http://127.0.0.1:11434");
/// assert_eq!(ollama_base("0.0.0.0"), "http://127.0.0.1:11434");
/// assert_eq!(ollama_base("https://gpu.example/ollama/"), "https://gpu.example:443/ollama");
/// ```
#[must_use]
pub fn ollama_base(value: &str) -> String {
    let value = value.trim().trim_matches(['"', '\'']).trim();
    let (scheme, rest, default_port) = match value.split_once("://") {
        Some((scheme, rest)) => {
            let scheme = if scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
            (scheme, rest, if scheme == "https" { "443" } else { "80" })
        }
        None if value == "ollama.com" => ("https", value, "443"),
        None => ("http", value, OLLAMA_PORT),
    };
    let (rest, query) = split_query(rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, authority) = split_user(authority);
    let (host, port) = split_port(authority);
    let port = port.filter(|port| port.parse::<u16>().is_ok()).unwrap_or(default_port);
    let host = match host {
        "" | "0.0.0.0" => String::from("127.0.0.1"),
        host => match host.parse::<Ipv6Addr>() {
            Ok(address) if address.is_unspecified() => String::from("[::1]"),
            Ok(_) => format!("[{host}]"),
            Err(_) => host.to_owned(),
        },
    };
    let path = path.trim_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{scheme}://{user}{host}:{port}{slash}{path}{query}")
}

/// Splits off the query, including its `?`, and drops any fragment.
pub(crate) fn split_query(url: &str) -> (&str, &str) {
    let url = url.split('#').next().unwrap_or_default();
    url.split_at(url.find('?').unwrap_or(url.len()))
}

/// Splits off `user:password@`, including its `@`.
fn split_user(authority: &str) -> (&str, &str) {
    authority.split_at(authority.rfind('@').map_or(0, |at| at + 1))
}

/// Returns the `user:password@` part of a URL; empty if there is none.
pub(crate) fn user_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    split_user(rest.split(['/', '?', '#']).next().unwrap_or_default()).0
}

/// Returns a URL without the parts that may contain secrets: credentials, query and fragment.
///
/// ```
/// use models::host::shown;
/// assert_eq!(shown("https://me:secret@host/v1?key=secret"), "https://host/v1");
/// ```
#[must_use]
pub fn shown(url: &str) -> String {
    let (url, _) = split_query(url);
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}{}{path}", split_user(authority).1)
}

/// Splits `host:port`, `[v6]:port`, bare IPv6 and plain hosts. The returned host has no brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, rest.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Returns the base URL of an OpenAI-compatible endpoint, given the value of `--base-url`. Adds a
/// missing scheme (`http` for local hosts and explicit ports, else `https`) and removes a pasted
/// `/chat/completions` and trailing slashes.
///
/// ```
/// use models::host::openai_base;
/// assert_eq!(openai_base("localhost:8080/v1/"), "http://localhost:8080/v1");
/// assert_eq!(openai_base("api.deepseek.com"), "https://api.deepseek.com");
/// ```
#[must_use]
pub fn openai_base(value: &str) -> String {
    let (value, query) = split_query(value.trim().trim_matches(['"', '\'']));
    let value = value.trim_end_matches('/');
    let value = value.strip_suffix("/chat/completions").unwrap_or(value).trim_end_matches('/');
    if value.contains("://") {
        return format!("{value}{query}");
    }
    let authority = value.split('/').next().unwrap_or_default();
    let (_, port) = split_port(split_user(authority).1);
    let plain = format!("http://{value}");
    let scheme = if port.is_some_and(|port| port != "443") || is_local(&plain) { "http" } else { "https" };
    format!("{scheme}://{value}{query}")
}

/// Strips a trailing `/v1` from a base URL. The result is the root of the server's own, non-OpenAI
/// paths.
#[must_use]
pub fn root(base: &str) -> Cow<'_, str> {
    let (base, query) = split_query(base);
    let base = base.trim_end_matches('/');
    let root = base.strip_suffix("/v1").unwrap_or(base).trim_end_matches('/');
    if query.is_empty() { Cow::Borrowed(root) } else { Cow::Owned(format!("{root}{query}")) }
}

/// Returns the host of a URL, in lowercase and without brackets; empty if there is none.
#[must_use]
pub fn host_of(base: &str) -> String {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    split_port(split_user(authority).1).0.to_ascii_lowercase()
}

/// Returns whether a URL points to this machine. Requests to such a URL bypass the proxy.
#[must_use]
pub fn is_loopback(base: &str) -> bool {
    let host = host_of(base);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Returns whether a URL points to this machine or the local network, where tokens are free and a
/// model may have to be loaded first.
#[must_use]
pub fn is_local(base: &str) -> bool {
    if is_loopback(base) {
        return true;
    }
    let host = host_of(base);
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            let carrier_grade = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64; // also Tailscale
            address.is_private() || address.is_link_local() || carrier_grade
        }
        Ok(IpAddr::V6(address)) => address.is_unique_local() || address.is_unicast_link_local(),
        // Single-label names, and names with one of these suffixes, are not public.
        Err(_) => {
            !host.is_empty()
                && (!host.contains('.')
                    || [".local", ".lan", ".internal", ".home.arpa"].iter().any(|end| host.ends_with(end)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollama_host_is_parsed_as_ollama_parses_it() {
        for (value, base) in [
            ("", "http://127.0.0.1:11434"),
            ("  'gpu' ", "http://gpu:11434"),
            ("\"1.2.3.4\"", "http://1.2.3.4:11434"),
            ("1.2.3.4:1234", "http://1.2.3.4:1234"),
            (":8080", "http://127.0.0.1:8080"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:99", "http://127.0.0.1:99"),
            ("http://0.0.0.0", "http://127.0.0.1:80"),
            ("::", "http://[::1]:11434"),
            ("[::]:5000", "http://[::1]:5000"),
            ("::1", "http://[::1]:11434"),
            ("[::1]", "http://[::1]:11434"),
            ("fe80::1", "http://[fe80::1]:11434"),
            ("http://gpu", "http://gpu:80"),
            ("https://gpu", "https://gpu:443"),
            ("HTTPS://gpu:8443/", "https://gpu:8443"),
            ("ollama.com", "https://ollama.com:443"),
            ("gpu/prefix/", "http://gpu:11434/prefix"),
            ("https://gpu/a/b/", "https://gpu:443/a/b"),
            ("gpu:70000", "http://gpu:11434"),
            ("gpu:word", "http://gpu:11434"),
            ("http://gpu:-1", "http://gpu:80"),
            ("http://me:pass@gpu:1/p/?key=k#f", "http://me:pass@gpu:1/p?key=k"),
            ("me@gpu", "http://me@gpu:11434"),
        ] {
            assert_eq!(ollama_base(value), base, "{value:?}");
        }
    }

    #[test]
    fn a_base_url_may_be_incomplete() {
        for (value, base) in [
            ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("gpu.example:8000/v1", "http://gpu.example:8000/v1"),
            ("api.deepseek.com", "https://api.deepseek.com"),
            ("https://host/v1/chat/completions", "https://host/v1"),
            ("https://host/v1/chat/completions?api-version=2", "https://host/v1?api-version=2"),
            ("me:pass@host:8000/v1", "http://me:pass@host:8000/v1"),
            ("me:pass@host.example/v1", "https://me:pass@host.example/v1"),
        ] {
            assert_eq!(openai_base(value), base, "{value:?}");
        }
        assert_eq!(root("http://h:1/v1"), "http://h:1");
        assert_eq!(root("http://h:1/"), "http://h:1");
        assert_eq!(root("http://u:p@h:1/v1?key=k"), "http://u:p@h:1?key=k");
    }

    #[test]
    fn possible_secrets_are_not_shown() {
        for (url, seen) in [
            ("http://h:1/v1", "http://h:1/v1"),
            ("http://u:p@h:1/v1?key=k", "http://h:1/v1"),
            ("https://u:p@x@h/?a=b@c#d", "https://h/"),
            ("u:p@h?k", "h"),
            ("/path/a@b", "/path/a@b"),
            ("", ""),
        ] {
            assert_eq!(shown(url), seen, "{url}");
        }
    }

    #[test]
    fn loopback_local_and_public_addresses_are_distinguished() {
        for url in [
            "http://127.0.0.1:1",
            "http://localhost/v1",
            "http://[::1]:80",
            "http://127.8.8.8",
            "http://a.localhost",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(url) && is_local(url), "{url}");
        }
        for url in [
            "http://192.168.1.5:11434",
            "http://gpu:1",
            "http://gpu.local",
            "http://10.0.0.1",
            "http://[fd00::1]",
            "http://100.100.1.1",
        ] {
            assert!(!is_loopback(url) && is_local(url), "{url}");
        }
        for url in [
            "https://api.deepseek.com",
            "http://8.8.8.8",
            "http://localhost.example",
            "http://127.0.0.1@evil.example/",
            "",
            "https://[2001:db8::1]",
        ] {
            assert!(!is_loopback(url) && !is_local(url), "{url}");
        }
    }
}

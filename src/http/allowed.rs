//! Which values of `Host` and `Origin` are served, and what browsers are told of it.
//!
//! ```text
//! Host     exactly one, of the list: otherwise a page of evil.example, whose name was made to lead
//!          here, would be served as if it were ours (DNS rebinding)
//! Origin   none, or exactly one of the list: otherwise any page could send what the user may send
//! ```
//!
//! The lists are parsed once. What is compared is what was parsed, never a part of the text: a name
//! with a user in front, a dot behind, a path or an escape is none of ours. To the origins of the
//! list the answers of CORS are given, without credentials of the browser's own (cookies): a client
//! in a page has its token like any other.

use std::net::Ipv6Addr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What is served when a setting names nothing.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const LOOPBACK_ORIGINS: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

/// How long a browser may remember what it was told, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// The lists.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    hosts: Vec<(Host, Port)>,
    origins: Vec<(String, Host, Port)>,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Foreign {
    /// Absent, twice, or not what the request line says.
    #[error("a request has exactly one Host, the one of its URL")]
    AmbiguousHost,
    #[error("this Host is not served here; http.allowed_hosts says which are")]
    Host,
    #[error("this Origin is not served here; http.allowed_origins says which are")]
    Origin,
    /// Of a request line with a whole URL.
    #[error("this scheme is not served here; send the path alone")]
    Scheme,
}

/// An entry of a setting that is no host or origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Of `http.allowed_hosts`.
    #[error("\"{0}\" is no name of a host; write \"mcp.example.com\" or \"mcp.example.com:8443\"")]
    Host(String),
    /// Of `http.allowed_origins`.
    #[error(
        "\"{0}\" is no origin; write \"https://app.example.com\", with \":8443\" for a port that is \
         not the scheme's own or \":*\" for any"
    )]
    Origin(String),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Host {
    /// In lower case.
    Name(String),
    V6(Ipv6Addr),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Port {
    Any,
    Exactly(Option<u16>),
}

impl Allowed {
    /// The lists of the settings; what is empty becomes loopback.
    ///
    /// # Errors
    ///
    /// The first entry that names nothing.
    pub(super) fn new(hosts: &[String], origins: &[String]) -> Result<Self, InvalidName> {
        let hosts = match hosts {
            [] => LOOPBACK_HOSTS.map(str::to_owned).to_vec(),
            some => some.to_vec(),
        };
        let origins = match origins {
            [] => LOOPBACK_ORIGINS.map(str::to_owned).to_vec(),
            some => some.to_vec(),
        };
        let hosts = hosts.into_iter().map(|text| {
            // As people write an address of version 6.
            let alone = text.parse().ok().map(|address| (Host::V6(address), None));
            let (host, port) = alone.or_else(|| authority(&text)).ok_or(InvalidName::Host(text))?;
            Ok((host, port.map_or(Port::Any, |port| Port::Exactly(Some(port)))))
        });
        let origins = origins.into_iter().map(|text| {
            let (origin, any) = match text.strip_suffix(":*") {
                Some(origin) => (origin, true),
                None => (&*text, false),
            };
            let (scheme, host, port) =
                parse_origin(origin).ok_or_else(|| InvalidName::Origin(text.clone()))?;
            let port = if any { Port::Any } else { Port::Exactly(port) };
            Ok((scheme.to_owned(), host, port))
        });
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            origins: origins.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a request with these parts may be served.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), Foreign> {
        let host = one(&parts.headers, header::HOST).ok_or(Foreign::AmbiguousHost)?;
        // A request line with a whole URL has a host of its own, which goes before the header.
        if parts.uri.authority().is_some_and(|url| !url.as_str().eq_ignore_ascii_case(host)) {
            return Err(Foreign::AmbiguousHost);
        }
        let (host, port) = authority(host).ok_or(Foreign::Host)?;
        if !self.hosts.iter().any(|(known, known_port)| *known == host && known_port.is(port)) {
            return Err(Foreign::Host);
        }
        if parts.headers.contains_key(header::ORIGIN) && self.origin(&parts.headers).is_none() {
            return Err(Foreign::Origin);
        }
        Ok(())
    }

    /// The origin of the page that a request is from, if it is one of the list.
    fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let (scheme, host, port) = parse_origin(one(headers, header::ORIGIN)?)?;
        let is_known = |(known_scheme, known, known_port): &(String, Host, Port)| {
            known_scheme == scheme && *known == host && known_port.is(port)
        };
        self.origins.iter().any(is_known).then(|| headers.get(header::ORIGIN))?
    }

    /// What the answer to a page of the list has to carry, so that the browser hands it on.
    pub(super) fn permission(&self, headers: &HeaderMap) -> Permission {
        Permission(self.origin(headers).cloned())
    }

    /// The answer to the question that a browser asks before it sends a page's request, if this is
    /// one and the page is of the list. It is the same for every tenant, and has no token.
    pub(super) fn preflight(&self, parts: &Parts) -> Option<Response> {
        let asks = parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && self.check(parts).is_ok();
        let permission = self.permission(&parts.headers);
        if !asks || permission.0.is_none() {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        let mut tell = |name, text| headers.insert(name, HeaderValue::from_static(text));
        tell(header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, DELETE");
        // `*` is every header but this one.
        tell(header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, *");
        tell(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        Some(permission.apply(response))
    }
}

/// What a browser is told about an answer.
#[derive(Debug)]
pub(super) struct Permission(Option<HeaderValue>);

impl Permission {
    pub(super) fn apply(self, mut response: Response) -> Response {
        if let Some(origin) = self.0 {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("Mcp-Session-Id, Retry-After, WWW-Authenticate"),
            );
        }
        response
    }
}

impl Port {
    fn is(self, port: Option<u16>) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(known) => known == port,
        }
    }
}

/// The value of a header that comes once.
fn one(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}

/// Scheme, host, and the port or that of the scheme.
fn parse_origin(text: &str) -> Option<(&str, Host, Option<u16>)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'.' | b'-'));
    let (host, port) = authority(rest).filter(|_| is_scheme)?;
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Some((scheme, host, port.or(default)))
}

/// Host and port of `host[:port]`, without a user, a path, an escape or anything else.
fn authority(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, rest) = if let Some(inner) = text.strip_prefix('[') {
        let (address, rest) = inner.split_once(']')?;
        (Host::V6(address.parse().ok()?), rest)
    } else {
        let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(is_name) {
            return None;
        }
        (Host::Name(name.to_ascii_lowercase()), rest)
    };
    if rest.is_empty() {
        return Some((host, None));
    }
    let digits = rest.strip_prefix(':')?;
    // No sign, no zero in front, no port 0.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.starts_with('0') {
        return None;
    }
    Some((host, Some(digits.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn allowed(hosts: &[&str], origins: &[&str]) -> Allowed {
        let owned =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Allowed::new(&owned(hosts), &owned(origins)).unwrap()
    }

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method("POST").uri("/mcp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn host(allowed: &Allowed, host: &str) -> Result<(), Foreign> {
        allowed.check(&parts(&[("Host", host)]))
    }

    fn origin(allowed: &Allowed, origin: &str) -> Result<(), Foreign> {
        allowed.check(&parts(&[("Host", "localhost"), ("Origin", origin)]))
    }

    #[test]
    fn by_default_loopback_is_served_on_any_port_and_nothing_that_resembles_it() {
        let allowed = allowed(&[], &[]);
        for name in ["localhost", "LOCALHOST:80", "127.0.0.1:65535", "[::1]", "[0:0::1]:8642"] {
            assert_eq!(host(&allowed, name), Ok(()), "{name}");
        }
        for name in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.",
            "localhost.evil.example",
            "",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost:",
            "localhost:0",
            "localhost:080",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost/",
            "localhost#",
            "localhost?",
            "local%68ost",
            "localhost localhost",
            "[::1",
            "::1",
            "[::1]x",
            "[localhost]",
            "127.1",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(host(&allowed, name), Err(Foreign::Host), "{name}");
        }
        for name in ["http://localhost", "http://localhost:3000", "http://[::1]:1"] {
            assert_eq!(origin(&allowed, name), Ok(()), "{name}");
        }
        for name in [
            "null",
            "",
            "http://evil.example",
            "https://localhost",
            "localhost",
            "http://",
            "http://localhost/",
            "http://a@localhost",
            "http://localhost.evil.example",
            "HTTP://localhost",
            "http://localhost http://localhost",
            "file://",
        ] {
            assert_eq!(origin(&allowed, name), Err(Foreign::Origin), "{name}");
        }
    }

    #[test]
    fn a_host_with_a_port_is_that_port_and_an_origin_without_one_the_port_of_its_scheme() {
        let allowed = allowed(
            &["mcp.example.com", "other.example:8443", "::1", "localhost"],
            &["https://app.example.com", "https://dev.example.com:*", "vscode-webview://abc"],
        );
        assert_eq!(host(&allowed, "mcp.example.com:1"), Ok(()));
        assert_eq!(host(&allowed, "other.example:8443"), Ok(()));
        assert_eq!(host(&allowed, "[::1]:5"), Ok(()));
        assert_eq!(host(&allowed, "other.example"), Err(Foreign::Host));
        assert_eq!(host(&allowed, "127.0.0.1"), Err(Foreign::Host));
        for served in [
            "https://app.example.com",
            "https://app.example.com:443",
            "https://dev.example.com:9",
            "vscode-webview://abc",
        ] {
            assert_eq!(origin(&allowed, served), Ok(()), "{served}");
        }
        for foreign in ["https://app.example.com:444", "http://app.example.com", "https://abc"] {
            assert_eq!(origin(&allowed, foreign), Err(Foreign::Origin), "{foreign}");
        }
    }

    #[test]
    fn none_or_two_of_what_has_to_be_one_is_refused() {
        let allowed = allowed(&[], &[]);
        let ambiguous = Err(Foreign::AmbiguousHost);
        assert_eq!(allowed.check(&parts(&[])), ambiguous);
        assert_eq!(
            allowed.check(&parts(&[("Host", "localhost"), ("Host", "localhost")])),
            ambiguous
        );
        let local = ("Origin", "http://localhost");
        let twice = parts(&[("Host", "localhost"), local, local]);
        assert_eq!(allowed.check(&twice), Err(Foreign::Origin));
        let mut whole = parts(&[("Host", "localhost")]);
        whole.uri = "http://evil.example/mcp".parse().unwrap();
        assert_eq!(allowed.check(&whole), ambiguous);
        whole.uri = "http://localhost/mcp".parse().unwrap();
        assert_eq!(allowed.check(&whole), Ok(()));
    }

    #[test]
    fn an_entry_that_names_nothing_is_refused() {
        let owned = |text: &str| vec![text.to_owned()];
        for text in ["", "*", "https://mcp.example.com", "a b", "mcp.example.com/mcp"] {
            let refused = Allowed::new(&owned(text), &[]).unwrap_err();
            assert_eq!(refused, InvalidName::Host(text.to_owned()));
        }
        for text in ["", "*", "null", "app.example.com", "https://*.example.com", "https://a/b"] {
            let refused = Allowed::new(&[], &owned(text)).unwrap_err();
            assert_eq!(refused, InvalidName::Origin(text.to_owned()));
        }
    }

    #[test]
    fn a_browser_is_answered_for_pages_of_the_list_only() {
        let allowed = allowed(&[], &[]);
        let ask = |origin: &str, method: &str| {
            let mut asked = parts(&[
                ("Host", "localhost"),
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
            ]);
            asked.method = method.parse().unwrap();
            allowed.preflight(&asked)
        };
        let answer = ask("http://localhost:6274", "OPTIONS").unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:6274");
        assert!(!answer.headers().contains_key("access-control-allow-credentials"));
        assert!(ask("http://evil.example", "OPTIONS").is_none());
        assert!(ask("http://localhost:6274", "POST").is_none());
    }
}

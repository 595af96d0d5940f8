//! Requests that no honest client sends, byte for byte, and for each kind an honest neighbour.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{PASSPHRASE, Sandbox};

const CORPUS: &str = include_str!("hostile_http.txt");

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const USUAL: &str = "Host: <<host>>\r\nAuthorization: Bearer <<token>>\r\n\
    Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
    Content-Length: <<length>>\r\nConnection: close";

/// One request of the corpus.
struct Case<'a> {
    name: &'a str,
    expected: Vec<&'a str>,
    head: Vec<&'a str>,
    body: &'a str,
}

fn cases() -> Vec<Case<'static>> {
    let texts = CORPUS.split("\n== ").skip(1);
    let cases = texts.map(|text| {
        // A heading may follow.
        let text = text.split("\n# ").next().unwrap();
        let (name, rest) = text.split_once('\n').unwrap();
        let (expected, rest) = rest.split_once('\n').unwrap();
        let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
        let expected = expected.split_whitespace().collect();
        Case { name, expected, head: head.lines().collect(), body: body.trim_end_matches('\n') }
    });
    cases.collect()
}

/// `text` as bytes, with each `<<…>>` replaced.
fn expand(text: &str, names: &BTreeMap<&str, String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<<") {
        let (name, after) = after.split_once(">>").unwrap();
        bytes.extend_from_slice(before.as_bytes());
        if let Some(value) = names.get(name) {
            bytes.extend(expand(value, names));
        } else if let Some((count, piece)) = name.split_once('*') {
            bytes.extend(piece.repeat(count.parse().unwrap()).into_bytes());
        } else {
            bytes.push(u8::from_str_radix(name, 16).unwrap());
        }
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

impl Case<'_> {
    fn is_honest(&self) -> bool {
        self.name.starts_with("honest: ")
    }

    fn bytes(&self, host: &str, token: &str) -> Vec<u8> {
        let mut names = BTreeMap::from([
            ("usual", USUAL.to_owned()),
            ("host", host.to_owned()),
            ("token", token.to_owned()),
        ]);
        let body = expand(self.body, &names);
        names.insert("length", body.len().to_string());
        let mut bytes = Vec::new();
        for line in &self.head {
            bytes.extend(expand(line, &names));
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        bytes
    }
}

/// The whole answer; of a request whose body is `cut`, what comes before the connection is closed.
fn send(host: &str, request: &[u8], cut: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Refused before the end, it may be closed before the end.
    drop(stream.write_all(request));
    if cut {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    // A reset is an end, too: the service does not read what it has refused.
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return answer,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return answer,
            Err(error) => unreachable!("no answer: {error}"),
        }
    }
}

/// Status and body of an answer.
fn parse(answer: &[u8]) -> (u16, Vec<u8>) {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    let body = answer.get(end + 4..).unwrap_or_default();
    if !head.contains("transfer-encoding: chunked") {
        return (status, body.to_vec());
    }
    let (mut whole, mut rest) = (Vec::new(), body);
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
    (status, whole)
}

/// What `answer` is, in the words of the corpus, and its request id.
fn described(answer: &[u8]) -> (String, Option<String>) {
    let (status, body) = parse(answer);
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return (format!("{status} - - -"), None);
    };
    let result = &body["result"]["structuredContent"];
    let details = if body["error"].is_object() { &body["error"]["data"] } else { result };
    let or_none = |value: &Value| match value.as_str() {
        _ if value.is_null() => "-".to_owned(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    let text = format!(
        "{status} {} {} {}",
        or_none(&body["error"]["code"]),
        or_none(&details["error_code"]),
        body["id"]
    );
    (text, details["request_id"].as_str().map(str::to_owned))
}

#[test]
fn a_hostile_request_gets_the_right_code_and_runs_nothing_and_an_honest_one_is_served() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({ "quotas": { "max_queries_per_day": 1_000 } }));
    sandbox.add_tenant("tenant002", &json!({}));
    sandbox.import();
    let token = sandbox.token("tenant001");
    let mut server = sandbox.serve();
    let host = server.endpoint["http://".len()..].strip_suffix("/mcp").unwrap().to_owned();
    let cases = cases();
    let hostile = cases.iter().filter(|case| !case.is_honest()).count();
    assert!(hostile >= 100, "{hostile}");

    let mut wrong = Vec::new();
    let mut rules = BTreeMap::new();
    let mut unknown_paths = Vec::new();
    for case in &cases {
        let is_cut = case.expected == ["cut"];
        let answer = send(&host, &case.bytes(&host, &token), is_cut);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains(&token) && !text.contains(PASSPHRASE), "{}: {text}", case.name);
        assert!(!text.contains("@tenant0"), "{}: {text}", case.name);
        assert!(text.matches("HTTP/1.").count() <= 1, "two answers to {}: {text}", case.name);
        if is_cut {
            assert!(!text.starts_with("HTTP/1.1 2"), "{}: {text}", case.name);
            continue;
        }
        let [status, code, error_code, rule, id] = case.expected[..] else {
            unreachable!("five words are expected of {}", case.name)
        };
        let (described, request_id) = described(&answer);
        let id = if id == "-" { String::new() } else { format!(" {id}") };
        let expected = format!("{status} {code} {error_code}{id}");
        if described.trim_end_matches(" -") != expected.trim_end_matches(" -") {
            wrong.push(format!("{}: expected {expected}, got {described}: {text}", case.name));
        }
        if let Some(request_id) = request_id {
            rules.insert(request_id, (case.name, rule));
        }
        if status == "404" {
            let without_date = text.lines().filter(|line| !line.starts_with("date: "));
            unknown_paths.push(without_date.collect::<Vec<_>>().join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(unknown_paths.windows(2).all(|pair| pair[0] == pair[1]), "{unknown_paths:?}");

    let entries = sandbox.audit(&[]);
    for (request_id, (name, rule)) in &rules {
        let entry = entries.iter().find(|entry| entry["request_id"] == request_id.as_str());
        let recorded = entry.and_then(|entry| entry["rule"].as_str()).unwrap_or("-");
        assert_eq!(recorded, *rule, "{name}");
    }
    // Honest ones only have run.
    let honest = cases.iter().filter(|case| case.is_honest() && case.expected[0] == "200");
    let honest = honest.filter(|case| case.body.contains("query_tenant_data")).count();
    let ran =
        |entry: &&Value| entry["decision"] == "allowed" && entry["action"] == "query_tenant_data";
    assert_eq!(entries.iter().filter(ran).count(), honest);
    let serves = cases.iter().rfind(|case| case.is_honest()).unwrap();
    let (described, _) = described(&send(&host, &serves.bytes(&host, &token), false));
    assert_eq!(described, "200 - - 7");
    server.signal("-TERM");
    let said = server.wait().ok().stderr;
    assert!(!said.contains(&token) && !said.contains("panicked"), "{said}");
}

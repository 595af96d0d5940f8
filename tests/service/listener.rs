//! The running service and clients that are slow, many, or behind something.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tenantry::error::Bound;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::TwoTenants;
use crate::bounds::assert_met;
use crate::support::{Sandbox, Server};

/// `POST` of `call` to `path`, after which the connection is closed.
fn request(path: &str, token: Option<&str>, more: &str, call: &Value) -> String {
    let body = call.to_string();
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{token}{more}Connection: close\r\n\
         Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn list_tools(path: &str, token: Option<&str>, more: &str) -> String {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    request(path, token, more, &call)
}

fn query(sql: &str, token: &str) -> String {
    let arguments = json!({ "resource_uri": "mcp://tenant001/database", "query": sql });
    let params = json!({ "name": "query_tenant_data", "arguments": arguments });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    request("/mcp", Some(token), "", &call)
}

async fn connect(server: &Server) -> TcpStream {
    let address = server.endpoint.split('/').nth(2).unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Everything that comes back.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// Bytes in memory of the service.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn two_thousand_connections_against_a_limit_of_five_hundred_cost_little() {
    const LIMIT: usize = 500;
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[
        ("TENANTRY_HTTP__MAX_CONNECTIONS", "500"),
        ("TENANTRY_HTTP__HEADER_TIMEOUT_MS", "600000"),
    ]);
    let good = list_tools("/mcp", Some(&tenants.tokens[0]), "");
    assert_eq!(status(&exchange(connect(&server).await, &good).await), "200");
    let before = resident(&server);
    let mut open = Vec::new();
    for _ in 0..2_000 {
        let mut stream = connect(&server).await;
        // All of a head but its end. Who is closed already need not notice.
        let _sent = stream.write_all(&good.as_bytes()[..good.len() / 2]).await;
        open.push(stream);
    }
    // They are accepted in the order in which they came.
    for mut stream in open.drain(LIMIT..) {
        assert!(!matches!(stream.read(&mut [0]).await, Ok(1)), "it was answered");
    }
    let used = resident(&server).saturating_sub(before);
    println!("{} KiB for each of {LIMIT} connections", (used >> 10) / LIMIT as u64);
    assert!(used < (LIMIT as u64) * (32 << 10), "{used} bytes for {LIMIT} connections");
    let stream = open.remove(0);
    assert_eq!(status(&exchange(stream, &good[good.len() / 2..]).await), "200");
    drop(open);
    assert_eq!(status(&exchange(connect(&server).await, &good).await), "200");
    let log = server.stop().ok().stderr;
    assert!(log.contains("http.max_connections"), "{log}");
    assert!(log.lines().count() < 20, "{log}");
}

#[tokio::test]
async fn a_service_without_files_for_connections_waits_for_some() {
    let tenants = TwoTenants::new();
    let command = tenants.sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""]).arg(command.get_program());
    limited.args(words).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    drop(command);
    let server = Server::start(&mut limited);
    let good = list_tools("/mcp", Some(&tenants.tokens[0]), "");
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(connect(&server).await);
    }
    drop(open);
    assert_eq!(status(&exchange(connect(&server).await, &good).await), "200");
    let log = server.stop().ok().stderr;
    assert_eq!(log.matches("connections are not accepted").count(), 1, "{log}");
}

#[tokio::test]
async fn the_audit_log_has_the_address_that_a_trusted_proxy_says() {
    let tenants = TwoTenants::new();
    let forwarded = "X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n";
    for (networks, expected) in [("[]", "127.0.0.1"), ("[\"127.0.0.1\"]", "192.0.2.1")] {
        let server = tenants.sandbox.serve_with(&[("TENANTRY_HTTP__TRUSTED_PROXIES", networks)]);
        let request = list_tools("/mcp", Some("nonsense"), forwarded);
        assert_eq!(status(&exchange(connect(&server).await, &request).await), "401");
        server.stop().ok();
        let entries = tenants.sandbox.audit(&["--code", "UNAUTHENTICATED"]);
        assert_eq!(entries.last().unwrap()["peer"], expected);
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_holds_no_instance() {
    let sandbox = Sandbox::new();
    let limits = json!({ "max_rows": 100_000, "max_result_bytes": 64 << 20 });
    let quotas = json!({ "max_concurrent_connections": 1 });
    sandbox.add_tenant("tenant001", &json!({ "limits": limits, "quotas": quotas }));
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve_with(&[("TENANTRY_POOL__ACQUIRE_TIMEOUT_MS", "50")]);
    let mut greedy = connect(&server).await;
    let row = ["a.email", "b.email", "c.email"].repeat(4).join(" || ");
    let from = "customers a, customers b, customers c";
    let large = query(&format!("SELECT {row} FROM {from}"), &token);
    greedy.write_all(large.as_bytes()).await.unwrap();
    // The answer is being written, and is more than sockets hold.
    let mut answer = vec![0; 12];
    greedy.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    let other = exchange(connect(&server).await, &query("SELECT 1", &token)).await;
    assert!(other.contains("\"isError\":false"), "{other}");
    greedy.read_to_end(&mut answer).await.unwrap();
    let is_whole = answer.len() > 24 << 20 && answer.ends_with(b"\r\n0\r\n\r\n");
    assert!(is_whole, "{} bytes", answer.len());
}

#[tokio::test]
async fn what_nobody_takes_and_what_comes_slowly_fills_the_share_of_its_tenant_only() {
    const SHARE: &str = "16777216";
    let sandbox = Sandbox::new();
    let limits = json!({ "max_rows": 100_000, "max_result_bytes": 64 << 20 });
    sandbox.add_tenant("tenant001", &json!({ "limits": limits }));
    sandbox.add_tenant("tenant002", &json!({ "limits": limits }));
    sandbox.import();
    let tokens = [sandbox.token("tenant001"), sandbox.token("tenant002")];
    let server = sandbox.serve_with(&[("TENANTRY_HTTP__MAX_BUFFERED_BYTES_PER_TENANT", SHARE)]);
    let row = ["a.email", "b.email", "c.email"].repeat(4).join(" || ");
    let from = "customers a, customers b, customers c";
    let large = |token| query(&format!("SELECT {row} FROM {from}"), token);
    let neighbours = large(&tokens[1]).replace("mcp://tenant001", "mcp://tenant002");
    let before = resident(&server);

    // Whether each is answered; its beginning is all that is read.
    let begin = async |request: &str, begun: &str| {
        let mut stream = connect(&server).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = vec![0; 12];
        stream.read_exact(&mut start).await.unwrap();
        if start == begun.as_bytes() {
            return Ok(stream);
        }
        stream.read_to_end(&mut start).await.unwrap();
        Err(String::from_utf8(start).unwrap())
    };
    let fill = async |request: &str, begun: &str| {
        let mut open = Vec::new();
        loop {
            match begin(request, begun).await {
                Ok(stream) => open.push(stream),
                Err(refused) => break (open, refused),
            }
            assert!(open.len() < 20, "{} are open", open.len());
        }
    };
    let (unread, refused) = fill(&large(&tokens[0]), "HTTP/1.1 200").await;
    assert!(!unread.is_empty());
    assert_refused(&refused, Bound::BufferedBytesPerTenant);
    let answer = exchange(connect(&server).await, &neighbours).await;
    assert!(answer.len() > 24 << 20 && answer.contains("\"isError\":false"));
    // What is small is served all the same.
    let small = exchange(connect(&server).await, &query("SELECT 1", &tokens[0])).await;
    assert!(small.contains("\"isError\":false"), "{small}");

    let body = list_tools("/mcp", Some(&tokens[1]), "Expect: 100-continue\r\n");
    let (head, _) = body.split_once("Content-Length: ").unwrap();
    let head = format!("{head}Content-Length: 1000000\r\n\r\n");
    let (slow, refused) = fill(&head, "HTTP/1.1 100").await;
    assert_eq!(slow.len(), 16);
    assert_refused(&refused, Bound::BufferedBytesPerTenant);
    let used = resident(&server).saturating_sub(before);
    println!("{} MiB for {} answers", used >> 20, unread.len());

    drop((unread, slow));
    for request in [&large(&tokens[0]), &neighbours] {
        // That they hung up has to be noticed first.
        while status(&exchange(connect(&server).await, request).await) != "200" {}
    }
}

#[tokio::test]
async fn where_all_tenants_together_have_no_room_left_a_large_body_is_refused_and_a_small_one_is_not()
 {
    let TwoTenants { sandbox, tokens } = TwoTenants::new();
    let server = sandbox.serve_with(&[
        ("TENANTRY_HTTP__MAX_BODY_BYTES", "100000"),
        ("TENANTRY_HTTP__MAX_BUFFERED_BYTES", "150000"),
    ]);
    let head = |token: &str| {
        let small = list_tools("/mcp", Some(token), "Expect: 100-continue\r\n");
        let (head, _) = small.split_once("Content-Length: ").unwrap();
        format!("{head}Content-Length: 100000\r\n\r\n")
    };
    let begin = async |token| {
        let mut stream = connect(&server).await;
        stream.write_all(head(token).as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).await.unwrap();
        (stream, begun == *b"HTTP/1.1 100")
    };
    let (slow, is_let_in) = begin(&tokens[0]).await;
    assert!(is_let_in);
    let refused = exchange(connect(&server).await, &head(&tokens[1])).await;
    assert_refused(&refused, Bound::BufferedBytes);
    let small = list_tools("/mcp", Some(&tokens[1]), "");
    assert_eq!(status(&exchange(connect(&server).await, &small).await), "200");
    drop(slow);
    // That it hung up has to be noticed first.
    while !begin(&tokens[1]).await.1 {}
    server.stop().ok();
}

/// The answer to a request that there is no room for.
fn assert_refused(answer: &str, bound: Bound) {
    assert_eq!(status(answer), "503", "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    // It may come as a chunk.
    let body = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
    assert_met(&serde_json::from_str::<Value>(body).unwrap()["error"]["data"], bound);
}

/// Certificates in `directory` for a service that asks clients for theirs.
struct Authority<'a> {
    directory: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn new(directory: &'a Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Issues `name.pem` and `name.key`, for `localhost` and `uri`.
    fn issue(&self, name: &str, uri: &str) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(name, "pem"), certificate.pem()).unwrap();
        // The umask of a test is its caller's.
        let key_path = self.path(name, "key");
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(key_path, mode).unwrap();
    }

    fn path(&self, name: &str, extension: &str) -> String {
        self.directory.join(format!("{name}.{extension}")).to_str().unwrap().to_owned()
    }

    /// What `server` answers to `request` from who shows the certificate `name`.
    async fn exchange(&self, server: &Server, name: &str, request: &str) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca", "pem")).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_file(self.path(name, "pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.path(name, "key")).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, connect(server).await).await.unwrap();
        exchange(stream, request).await
    }
}

#[tokio::test]
async fn a_token_counts_only_where_the_certificate_is_its_tenants() {
    let tenants = TwoTenants::new();
    let directory = tenants.sandbox.path("tls");
    std::fs::create_dir(&directory).unwrap();
    let authority = Authority::new(&directory);
    for name in ["tenant001", "tenant002"] {
        authority.issue(name, &format!("spiffe://example.com/tenant/{name}"));
    }
    authority.issue("nobody", "spiffe://example.com/service/build");
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let server = tenants.sandbox.serve_with(&[
        ("TENANTRY_HTTP__TLS__CERTIFICATE", &path("nobody.pem")),
        ("TENANTRY_HTTP__TLS__KEY", &path("nobody.key")),
        ("TENANTRY_HTTP__TLS__CLIENT_CA", &path("ca.pem")),
        ("TENANTRY_HTTP__TLS__CLIENT_TENANT_URI", "spiffe://example.com/tenant/{tenant}"),
    ]);
    assert!(server.endpoint.starts_with("https://127.0.0.1:"), "{}", server.endpoint);
    let [first, second] = tenants.tokens.each_ref().map(String::as_str);
    for (name, path, token, expected) in [
        ("tenant001", "/mcp", Some(first), "200"),
        ("tenant001", "/mcp/tenant001", Some(first), "200"),
        ("tenant002", "/mcp", Some(second), "200"),
        ("tenant001", "/mcp", None, "401"),
        ("tenant002", "/mcp", Some(first), "403"),
        ("tenant002", "/mcp/tenant001", Some(first), "403"),
        ("nobody", "/mcp", Some(first), "403"),
    ] {
        let answer = authority.exchange(&server, name, &list_tools(path, token, "")).await;
        assert_eq!(status(&answer), expected, "{name} {path}: {answer}");
    }
    let refused = tenants.sandbox.audit(&["--code", "FORBIDDEN"]);
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert_eq!(refused[0]["tenant"], "tenant001");
    assert_eq!(refused[0]["target_tenant"], "tenant002");
    server.stop().ok();
}

#[test]
fn a_service_does_not_start_with_a_certificate_that_it_cannot_use() {
    let sandbox = Sandbox::new();
    let serve = |variables: &[(&str, &str)]| {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        crate::support::finish(command.envs(variables.iter().copied()))
    };
    let absent = [
        ("TENANTRY_HTTP__TLS__CERTIFICATE", "/no/such.pem"),
        ("TENANTRY_HTTP__TLS__KEY", "/no/such.key"),
    ];
    serve(&absent).failed(2, &["http.tls.certificate (/no/such.pem): cannot be read"]);
    serve(&absent[..1]).failed(2, &["http.tls.key: certificate and key are needed both"]);
}

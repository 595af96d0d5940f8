//! Many connections of several tenants at once, all with the same JSON-RPC ids.
//!
//! Every answer is looked at as bytes: it has the id of its own request and the rows of its own tenant, and
//! nowhere in it, headers included, is there a word of another's. Callers that hang up in the
//! middle, and callers that ask for what is another's, are among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{CUSTOMERS, Sandbox, Server};

const CONNECTIONS: usize = 64;

/// How long each run goes on: seconds in `./dev test`, more when somebody asks for it.
#[expect(clippy::disallowed_methods, reason = "how a longer run is asked for")]
fn duration() -> Duration {
    let seconds = std::env::var("TENANTRY_TEST_ISOLATION_SECONDS");
    Duration::from_secs(seconds.ok().map_or(3, |seconds| seconds.parse().unwrap()))
}

#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    rows: AtomicU64,
    refused: AtomicU64,
    hung_up: AtomicU64,
}

struct Caller {
    http: Client,
    endpoint: String,
    token: String,
    tenant: String,
    /// All of them; the name of each is in every row that it has.
    tenants: Arc<Vec<String>>,
    seen: Arc<Seen>,
}

impl Caller {
    fn request(&self, id: u64, method: &str, params: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(&self.endpoint)
            .bearer_auth(&self.token)
            .header("Accept", "application/json, text/event-stream")
            .json(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
    }

    /// The answer as JSON, after its bytes were searched.
    async fn ask(&self, id: u64, method: &str, params: &Value) -> Value {
        let response = self.request(id, method, params).send().await.unwrap();
        let headers = format!("{:?}", response.headers());
        let text = format!("{headers}{}", response.text().await.unwrap());
        for other in self.tenants.iter().filter(|other| **other != self.tenant) {
            assert!(!text.contains(other.as_str()), "{}: {other} in {text}", self.tenant);
        }
        let body = text.get(headers.len()..).unwrap();
        let answer: Value = serde_json::from_str(body).unwrap();
        assert_eq!(answer["id"], json!(id), "{answer}");
        self.seen.answers.fetch_add(1, Ordering::Relaxed);
        answer
    }

    async fn tool(&self, id: u64, name: &str, arguments: &Value) -> Value {
        let params = json!({ "name": name, "arguments": arguments });
        let answer = self.ask(id, "tools/call", &params).await;
        answer["result"]["structuredContent"].clone()
    }

    async fn one_of_each(&self, id: u64) {
        let uri = format!("mcp://{}/database", self.tenant);
        let customer = id % CUSTOMERS + 1;
        let sql = "SELECT id, email FROM customers WHERE id = ?1";
        let query = json!({ "resource_uri": uri, "query": sql, "params": [customer] });
        let rows = &self.tool(id, "query_tenant_data", &query).await["rows"];
        let email = format!("c{customer}@{}.example", self.tenant);
        assert_eq!(*rows, json!([[customer, email]]));
        self.seen.rows.fetch_add(1, Ordering::Relaxed);
        let metadata = self.tool(id, "get_tenant_metadata", &json!({})).await;
        assert_eq!(metadata["tenant_id"], json!(self.tenant));
        let listed = self.tool(id, "list_tenant_resources", &json!({})).await;
        assert_eq!(listed["resources"][0]["uri"], json!(uri), "{listed}");
        let table = format!("{uri}/table/customers");
        let read = self.ask(id, "resources/read", &json!({ "uri": table })).await;
        assert!(read.to_string().contains(&format!("@{}.example", self.tenant)), "{read}");
    }

    async fn ask_for_anothers(&self, id: u64, other: &str) {
        let uri = format!("mcp://{other}/database");
        let query = json!({ "resource_uri": uri, "query": "SELECT email FROM customers" });
        let params = json!({ "name": "query_tenant_data", "arguments": query });
        let answer = self.ask(id, "tools/call", &params).await;
        assert_eq!(answer["result"]["structuredContent"]["error_code"], "FORBIDDEN", "{answer}");
        self.seen.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends a query and does not wait for all of its answer.
    async fn hang_up(&self, id: u64) {
        let uri = format!("mcp://{}/database", self.tenant);
        let query =
            json!({ "resource_uri": uri, "query": "SELECT * FROM customers a, customers b" });
        let params = json!({ "name": "query_tenant_data", "arguments": query });
        let request = self.request(id, "tools/call", &params).send();
        let patience = Duration::from_millis(id % 5);
        if tokio::time::timeout(patience, request).await.is_err() {
            self.seen.hung_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts with `count` tenants, and lets 64 callers go on at once.
async fn run(count: usize) -> (Arc<Seen>, Server, Sandbox) {
    let sandbox = Sandbox::new();
    let ids: Vec<String> = (1..=count).map(|number| format!("tenant{number:03}")).collect();
    for id in &ids {
        sandbox.add_tenant(id, &json!({}));
    }
    sandbox.import();
    let tokens: Vec<String> = ids.iter().take(CONNECTIONS).map(|id| sandbox.token(id)).collect();
    let server = sandbox.serve();
    let tenants = Arc::new(ids.clone());
    let seen = Arc::new(Seen::default());
    let ends = Instant::now() + duration();
    let callers = (0..CONNECTIONS).map(|number| {
        let place = number % tokens.len();
        let caller = Caller {
            http: Client::new(),
            endpoint: server.endpoint.clone(),
            token: tokens[place].clone(),
            tenant: ids[place].clone(),
            tenants: Arc::clone(&tenants),
            seen: Arc::clone(&seen),
        };
        let other = ids[(place + 1) % ids.len()].clone();
        async move {
            // The same ids on every connection.
            let mut id = 1;
            while Instant::now() < ends {
                match (id + number as u64) % 8 {
                    6 => caller.ask_for_anothers(id, &other).await,
                    7 => caller.hang_up(id).await,
                    _ => caller.one_of_each(id).await,
                }
                id += 1;
            }
        }
    });
    futures_util::future::join_all(callers).await;
    (seen, server, sandbox)
}

#[expect(clippy::print_stdout, reason = "what a longer run is asked for")]
async fn nobody_sees_anothers(count: usize) {
    let (seen, server, sandbox) = run(count).await;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (answers, refused) = (of(&seen.answers), of(&seen.refused));
    let told = format!(
        "{count} tenants, {CONNECTIONS} connections: {answers} answers, {} of them with rows, {refused} \
         refused, {} hung up on; of another tenant: 0",
        of(&seen.rows),
        of(&seen.hung_up),
    );
    println!("{told}");
    assert!(of(&seen.rows) > CONNECTIONS as u64 && of(&seen.hung_up) > 0, "{told}");
    server.stop().ok();
    // Every refusal that was answered is on record, each with its own tenant.
    let entries = sandbox.audit(&["--code", "FORBIDDEN"]);
    assert_eq!(entries.len() as u64, refused, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_tenants_with_the_same_request_ids_nobody_sees_the_others() {
    nobody_sees_anothers(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_tenants_with_the_same_request_ids_nobody_sees_anothers() {
    nobody_sees_anothers(100).await;
}

//! Access tokens of an issuer, as clients of the running program meet them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rmcp::ServiceExt;
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};

use crate::support::{Sandbox, Server};
use crate::{Era, TwoTenants, connect, error_code, query};

const PUBLIC: &str = "https://mcp.example.com";
const METADATA: &str = "/.well-known/oauth-protected-resource";

/// An issuer whose keys are in a file.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn serve(&self, sandbox: &Sandbox) -> Server {
        let file = sandbox.path("keys.json");
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x });
        std::fs::write(&file, json!({ "keys": [key] }).to_string()).unwrap();
        let settings = format!(
            "[http]\npublic_url = \"{PUBLIC}\"\n[[auth.issuers]]\nissuer = \"https://id.example.com\"\n\
             jwks_file = \"{}\"\nalgorithms = [\"EdDSA\"]\ntenant_claim = \"tenant\"\n",
            file.display()
        );
        std::fs::write(sandbox.path("tenantry.toml"), settings).unwrap();
        sandbox.serve()
    }

    fn token(&self, tenant: &str, scope: &str) -> String {
        let claims = json!({
            "iss": "https://id.example.com", "sub": "ann", "tenant": tenant, "scope": scope,
            "aud": format!("{PUBLIC}/mcp/{tenant}"),
            "exp": jiff::Timestamp::now().as_second() + 300,
        });
        let header = json!({ "alg": "EdDSA", "kid": "1", "typ": "at+jwt" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

#[tokio::test]
async fn an_access_token_reaches_its_own_tenant_and_is_recorded_by_its_subject() {
    let tenants = TwoTenants::new();
    let issuer = Issuer::new();
    let server = issuer.serve(&tenants.sandbox);
    let token = issuer.token("tenant001", "query");
    for era in [Era::Legacy, Era::Modern] {
        let client = connect(&format!("{}/tenant001", server.endpoint), &token, era).await;
        let sql = "SELECT * FROM customers";
        let answer = query(&client, "mcp://tenant001/database/table/customers", sql).await;
        assert_ne!(answer.is_error, Some(true), "{answer:?}");
        let foreign = query(&client, "mcp://tenant002/database/table/customers", sql).await;
        assert_eq!(error_code(&foreign), "FORBIDDEN");
    }
    let entries = tenants.sandbox.audit(&["--tenant", "tenant002"]);
    let subject =
        json!({ "kind": "subject", "issuer": "https://id.example.com", "subject": "ann" });
    assert!(entries.iter().any(|entry| entry["actor"] == subject), "{entries:?}");
    // Tokens of ours go on.
    connect(&server.endpoint, &tenants.tokens[1], Era::Modern).await;
}

#[tokio::test]
async fn a_client_without_a_token_is_led_to_the_issuer() {
    let tenants = TwoTenants::new();
    let server = Issuer::new().serve(&tenants.sandbox);
    let transport =
        StreamableHttpClientTransport::from_uri(format!("{}/tenant001", server.endpoint));
    let error = ().serve(transport).await.unwrap_err();
    assert!(error.is_authorization_required());
    let challenge = error.auth_challenge().unwrap();
    let url = format!("resource_metadata=\"{PUBLIC}{METADATA}/mcp/tenant001\"");
    assert!(challenge.contains(&url) && challenge.contains("scope=\""), "{challenge}");
    assert!(!challenge.contains("error="), "{challenge}");
    let response = reqwest::Client::new()
        .post(format!("{}/%22%0d%0a", server.endpoint))
        .bearer_auth("a.b.c")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(challenge.ends_with(&format!("resource_metadata=\"{PUBLIC}{METADATA}/mcp\"")));
}

#[tokio::test]
async fn a_client_whose_scopes_do_not_suffice_is_told_which_would() {
    let tenants = TwoTenants::new();
    let issuer = Issuer::new();
    let server = issuer.serve(&tenants.sandbox);
    let call = async |token: &str| {
        let request = reqwest::Client::new().post(format!("{}/tenant001", server.endpoint));
        let request = request
            .bearer_auth(token)
            .header("Mcp-Method", "tools/call")
            .header("Mcp-Name", "query_tenant_data");
        request.body("{}").send().await.unwrap()
    };
    let refused = call(&issuer.token("tenant001", "list metadata")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let parts = ["error=\"insufficient_scope\"", "scope=\"list query metadata\"", METADATA];
    assert!(parts.iter().all(|part| challenge.contains(part)), "{challenge}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["data"]["message"], "the token does not allow query");
    let recorded = tenants.sandbox.audit(&["--code", "FORBIDDEN"]);
    assert_eq!(
        (&recorded[0]["action"], &recorded[0]["rule"]),
        (&json!("query_tenant_data"), &json!("scope"))
    );
    let used = tenants.sandbox.json(&["quota", "show", "tenant001"]);
    assert_eq!(used["quotas"]["max_denied_per_hour"]["used"], 1, "{used}");
    // Enough, and a token of ours: these get as far as the body, which is none.
    for token in [&issuer.token("tenant001", "query"), &tenants.tokens[0]] {
        assert!(!call(token).await.headers().contains_key("www-authenticate"));
    }
}

#[tokio::test]
async fn metadata_are_the_same_for_tenants_that_are_there_and_others() {
    let tenants = TwoTenants::new();
    let server = Issuer::new().serve(&tenants.sandbox);
    let origin = server.endpoint.trim_end_matches("/mcp").to_owned();
    let ask = async |method: Method, path: &str| {
        let url = format!("{origin}{METADATA}{path}");
        reqwest::Client::new().request(method, url).send().await.unwrap()
    };
    let mut documents = Vec::new();
    for tenant in ["tenant001", "nobody001"] {
        let response = ask(Method::GET, &format!("/mcp/{tenant}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert!(response.headers().contains_key("cache-control"));
        documents.push(response.text().await.unwrap().replace(tenant, "TENANT"));
    }
    assert_eq!(documents[0], documents[1]);
    let document: Value = serde_json::from_str(&documents[0]).unwrap();
    assert_eq!(document["resource"], format!("{PUBLIC}/mcp/TENANT"));
    assert_eq!(document["authorization_servers"], json!(["https://id.example.com"]));
    for path in ["", "/mcp"] {
        let document: Value = ask(Method::GET, path).await.json().await.unwrap();
        assert_eq!(document["resource"], format!("{PUBLIC}/mcp"));
    }
    for path in ["/mcp/x", "/mcp/tenant001/", "/mcp/tenant00%31", "/other", "/mcp/a/b"] {
        assert_eq!(ask(Method::GET, path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let refused = ask(Method::POST, "/mcp").await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask(Method::OPTIONS, "/mcp").await.status(), StatusCode::NO_CONTENT);
    // Nothing of it without an issuer.
    server.stop().ok();
    std::fs::remove_file(tenants.sandbox.path("tenantry.toml")).unwrap();
    let server = tenants.sandbox.serve();
    let url = format!("{}{METADATA}/mcp", server.endpoint.trim_end_matches("/mcp"));
    let response = reqwest::get(url).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

//! What is a message, and what is none.

use rmcp::model::{ClientJsonRpcMessage, ClientRequest};
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Message, Malformed> {
    Message::read(Bytes::copy_from_slice(text.as_bytes()))
}

#[track_caller]
fn call(text: &str) -> Call {
    match read(text).map(|message| message.content) {
        Ok(Content::Call(call)) => call,
        other => unreachable!("{text}: {other:?}"),
    }
}

/// The problem with `text`, and the id for the answer.
#[track_caller]
fn problem(text: &str) -> (Problem, Value) {
    let Malformed { problem, id } = read(text).unwrap_err();
    assert!(problem.to_string().len() < 120);
    (problem, id)
}

#[test]
fn a_request_a_notification_and_a_response_are_told_apart() {
    let text = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x",
        "arguments":{"name":"y"},"_meta":{"io.modelcontextprotocol/protocolVersion":"v"}}}"#;
    let request = call(text);
    assert_eq!(request.id, Some(json!("a")));
    assert_eq!(request.name.as_deref(), Some("x"));
    assert_eq!(request.version.as_deref(), Some("v"));
    assert_eq!(read(text).unwrap().into_bytes(), text);
    let notification = call(r#"{"method":"notifications/x","jsonrpc":"2.0","params":{}}"#);
    assert_eq!(notification.id, None);
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}"#,
    ] {
        assert!(matches!(read(text).unwrap().content(), Content::Response), "{text}");
    }
}

#[test]
fn an_id_comes_back_as_it_was_sent_or_is_refused() {
    let with = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let string = |length: usize| format!("\"{}\"", "x".repeat(length));
    let longest = string(MAX_ID);
    for id in ["0", "-1", "9223372036854775807", "\"\"", "\"1\"", "\"\\u00e9\"", &longest] {
        let read = call(&with(id)).id.unwrap();
        assert_eq!(read, serde_json::from_str::<Value>(id).unwrap(), "{id}");
    }
    let longer = string(MAX_ID + 1);
    for id in ["null", "true", "1.0", "1e2", "-0", "9223372036854775808", "{}", "[1]", &longer] {
        assert_eq!(problem(&with(id)), (Problem::Id, Value::Null), "{id}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_without_an_id() {
    for (text, expected) in [
        ("", Problem::Empty),
        (" \n", Problem::Empty),
        ("nonsense", Problem::Syntax),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping"}x"#, Problem::Syntax),
        (r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#, Problem::Batch),
        ("[]", Problem::Batch),
        ("null", Problem::Object),
        (r#""ping""#, Problem::Object),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"ping"}"#, Problem::Duplicate),
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":[1e999]}}"#, Problem::Number),
    ] {
        assert_eq!(problem(text), (expected, Value::Null), "{text}");
    }
    let bytes = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"\xff\"}");
    assert_eq!(Message::read(bytes).unwrap_err().problem, Problem::Encoding);
}

#[test]
fn the_envelope_has_its_members_and_no_others() {
    for (members, expected) in [
        (r#""method":"ping""#, Problem::Version),
        (r#""jsonrpc":2.0,"method":"ping""#, Problem::Version),
        (r#""jsonrpc":"1.0","method":"ping""#, Problem::Version),
        (r#""jsonrpc":"2.0""#, Problem::Shape),
        (r#""jsonrpc":"2.0","method":"ping","result":{}"#, Problem::Shape),
        (r#""jsonrpc":"2.0","result":{},"error":{}"#, Problem::Shape),
        (r#""jsonrpc":"2.0","error":{"code":"1","message":"x"}"#, Problem::Shape),
        (r#""jsonrpc":"2.0","method":null"#, Problem::Method),
        (r#""jsonrpc":"2.0","method":"ping","tenant":"b""#, Problem::Member),
        (r#""jsonrpc":"2.0","method":"ping","Method":"x""#, Problem::Lookalike),
        (r#""jsonrpc":"2.0","method":"ping","paramſ":{}"#, Problem::Lookalike),
        (r#""jsonrpc":"2.0","method":"ping","param\u017f":{}"#, Problem::Lookalike),
    ] {
        let text = format!("{{\"id\":7,{members}}}");
        assert_eq!(problem(&text), (expected, json!(7)), "{text}");
    }
    let long = "x".repeat(MAX_METHOD + 1);
    let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{long}"}}"#);
    assert_eq!(problem(&text).0, Problem::Method);
}

#[test]
fn parameters_are_an_object_that_fits_the_method() {
    for (method, params, expected) in [
        ("ping", "[]", Problem::Params),
        ("ping", "null", Problem::Params),
        ("ping", r#"{"_meta":1}"#, Problem::Params),
        ("ping", r#"{"_META":{}}"#, Problem::Lookalike),
        ("ping", r#"{"_meta":{"ProgressToken":1}}"#, Problem::Lookalike),
        ("ping", r#"{"_meta":{"progressToken":{"a":1}}}"#, Problem::ProgressToken),
        ("ping", r#"{"_meta":{"progressToken":1.5}}"#, Problem::ProgressToken),
        ("ping", r#"{"tenant":"tenant002"}"#, Problem::Tenant),
        ("tools/call", r#"{"name":"x","arguments":{},"tenant_id":"tenant002"}"#, Problem::Tenant),
        ("tools/call", r#"{"name":"x","bogus":1}"#, Problem::Parameter),
        ("tools/call", r#"{"name":"x","task":{"Tenant":"tenant002"}}"#, Problem::Tenant),
        ("resources/read", r#"{"uri":"x","tenant":"tenant002"}"#, Problem::Tenant),
        ("tools/list", r#"{"cursor":"","name":"x"}"#, Problem::Parameter),
        ("ping", "{\"_meta\":{\"progressTo\u{212a}en\":1}}", Problem::Lookalike),
        ("tools/call", r#"{"Name":"x"}"#, Problem::Lookalike),
        ("tools/call", "{}", Problem::ToolCall),
        ("tools/call", r#"{"name":1}"#, Problem::ToolCall),
        ("tools/call", r#"{"name":"x","arguments":[]}"#, Problem::ToolCall),
        ("resources/read", "{}", Problem::Parameters),
        ("logging/setLevel", r#"{"level":"loud"}"#, Problem::Parameters),
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#);
        assert_eq!(problem(&text), (expected, json!(7)), "{text}");
    }
    for (method, params) in [
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/resource","uri":"mcp://a/{x}"},
                "argument":{"name":"x","value":""},"context":{"arguments":{"y":"z"}}}"#,
        ),
        (
            "initialize",
            r#"{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true}},
                "clientInfo":{"name":"x","version":"1"},"_meta":{"example.com/Name":1}}"#,
        ),
        ("logging/setLevel", r#"{"level":"warning"}"#),
        ("prompts/get", r#"{"name":"x","arguments":{"Name":"y"}}"#),
        ("tools/call", r#"{"name":"x","arguments":null}"#),
        ("tools/call", r#"{"name":"x","arguments":{"Name":1,"name":[{"ID":1}]}}"#),
        ("tools/call", r#"{"name":"x","task":{"ttl":1},"inputResponses":{"tenant":{}}}"#),
        ("tools/list", r#"{"cursor":"","_meta":{"later":{"Method":1},"tenant":"x"}}"#),
        ("ping", r#"{"_meta":{"progressToken":-1}}"#),
        ("ping", r#"{"_meta":{"progressToken":"a"}}"#),
        ("subscriptions/listen", r#"{"notifications":{"toolsListChanged":true}}"#),
        ("unheard/of", r#"{"x":1}"#),
    ] {
        call(&format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#));
    }
    for method in ["ping", "tools/list", "server/discover", "unheard/of"] {
        call(&format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}"}}"#));
    }
}

/// Every object with some of `members`, each with one of `values`.
fn objects(members: &[&str], values: &[Value]) -> Vec<Value> {
    let mut objects = vec![json!({})];
    for member in members {
        for at in 0..objects.len() {
            for value in values {
                let mut object = objects[at].clone();
                object[*member] = value.clone();
                objects.push(object);
            }
        }
    }
    objects
}

#[test]
fn what_is_passed_on_is_known_by_the_method_that_it_names() {
    let values = [
        json!(null),
        json!(1),
        json!("info"),
        json!({}),
        json!({ "name": "x", "value": "y", "version": "1" }),
        json!({ "type": "ref/resource", "uri": "x" }),
    ];
    let methods: [(&str, &[&str]); 15] = [
        ("completion/complete", &["ref", "argument", "_meta"]),
        ("initialize", &["protocolVersion", "capabilities", "clientInfo"]),
        ("logging/setLevel", &["level", "_meta"]),
        ("ping", &["x", "_meta"]),
        ("prompts/get", &["name", "arguments", "_meta"]),
        ("prompts/list", &["cursor", "_meta"]),
        ("resources/list", &["cursor", "_meta"]),
        ("resources/read", &["uri", "requestState", "_meta"]),
        ("resources/subscribe", &["uri", "_meta"]),
        ("resources/templates/list", &["cursor", "_meta"]),
        ("resources/unsubscribe", &["uri", "_meta"]),
        ("server/discover", &["x", "_meta"]),
        ("subscriptions/listen", &["notifications", "_meta"]),
        ("tools/call", &["name", "arguments", "inputResponses"]),
        ("tools/list", &["cursor", "_meta"]),
    ];
    let (mut passed, mut refused) = (0, 0);
    for (method, members) in methods {
        for params in objects(members, &values) {
            let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let text = text.to_string();
            if read(&text).is_err() {
                refused += 1;
                continue;
            }
            passed += 1;
            let Ok(ClientJsonRpcMessage::Request(request)) = serde_json::from_str(&text) else {
                unreachable!("passed on, and no request: {text}")
            };
            let is_known = !matches!(request.request, ClientRequest::CustomRequest(_));
            assert!(is_known, "passed on, and unknown: {text}");
        }
    }
    assert!(passed > 100 && refused > 500, "{passed} passed, {refused} refused");
}

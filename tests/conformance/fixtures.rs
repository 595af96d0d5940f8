//! What the conformance suite expects a server to have: tools, resources and prompts by these names.
//!
//! Most of it is data. It does nothing by itself that a tenant's server leaves to [`Dispatch`] and to
//! the endpoint: what the suite finds right about the wire is theirs.
//!
//! [`Dispatch`]: tenantry::server::Dispatch
#![expect(deprecated, reason = "the suite asks for what older revisions have")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities,
    CompleteRequestParams, CompleteResult, CompletionInfo, CreateMessageRequestParams,
    ElicitRequest, ElicitRequestParams, GetPromptRequestParams, GetPromptResponse,
    InputRequiredResult, InputResponses, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, LoggingLevel, LoggingMessageNotificationParam,
    PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
    ReadResourceResponse, SamplingMessage, ServerCapabilities, ServerConfig, ServerRequest,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool,
    UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A picture of one red pixel.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==";
/// A recording of silence.
const SOUND: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

type Context = RequestContext<RoleServer>;

/// The fixtures. Clones share what they remember.
#[derive(Clone, Default)]
pub(crate) struct Fixtures {
    memory: Arc<Memory>,
}

#[derive(Default)]
struct Memory {
    next: AtomicU64,
    listeners: Mutex<HashMap<u64, SubscriptionSink>>,
    /// The states that were given out, and which round each stands for.
    states: Mutex<HashMap<String, u64>>,
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn text(text: impl Into<String>) -> Value {
    json!({ "type": "text", "text": text.into() })
}

fn image() -> Value {
    json!({ "type": "image", "data": IMAGE, "mimeType": "image/png" })
}

fn embedded(uri: &str, mime_type: &str, text: &str) -> Value {
    let resource = json!({ "uri": uri, "mimeType": mime_type, "text": text });
    json!({ "type": "resource", "resource": resource })
}

fn content(blocks: &[Value]) -> CallToolResult {
    read(json!({ "resultType": "complete", "content": blocks, "isError": false }))
}

fn said(words: impl Into<String>) -> CallToolResponse {
    content(&[text(words)]).into()
}

/// Asks the client for `inputs`, each a method and its parameters by the name of the answer.
fn required(inputs: &Value, state: Option<String>) -> InputRequiredResult {
    let mut result = json!({ "resultType": "input_required", "inputRequests": inputs });
    if let Some(state) = state {
        result["requestState"] = state.into();
    }
    read(result)
}

fn question(message: &str, property: &str, kind: &str) -> Value {
    let schema = json!({
        "type": "object", "properties": { property: { "type": kind } }, "required": [property],
    });
    json!({
        "method": "elicitation/create",
        "params": { "mode": "form", "message": message, "requestedSchema": schema },
    })
}

fn sample(prompt: &str) -> Value {
    let messages = json!([{ "role": "user", "content": text(prompt) }]);
    json!({ "method": "sampling/createMessage", "params": { "messages": messages, "maxTokens": 100 } })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

/// The answer with this name, if it is one.
fn answered<'a>(responses: Option<&'a InputResponses>, name: &str) -> Option<&'a Value> {
    responses.and_then(|responses| responses.get(name)).filter(|answer| answer.is_object())
}

fn tools() -> Vec<Tool> {
    let plain = [
        "test_simple_text",
        "test_image_content",
        "test_audio_content",
        "test_embedded_resource",
        "test_multiple_content_types",
        "test_tool_with_logging",
        "test_tool_with_progress",
        "test_error_handling",
        "test_sampling",
        "test_elicitation",
        "test_elicitation_sep1034_defaults",
        "test_elicitation_sep1330_enums",
        "test_reconnection",
        "test_missing_capability",
        "test_streaming_elicitation",
        "test_logging_tool",
        "test_trigger_tool_change",
        "test_trigger_prompt_change",
        "test_input_required_result_elicitation",
        "test_input_required_result_sampling",
        "test_input_required_result_list_roots",
        "test_input_required_result_request_state",
        "test_input_required_result_multiple_inputs",
        "test_input_required_result_multi_round",
        "test_input_required_result_tampered_state",
        "test_input_required_result_capabilities",
    ];
    let schemas = json!([
        {
            "name": "test_custom_header",
            "description": "Takes a parameter that a header repeats.",
            "inputSchema": {
                "type": "object",
                "properties": { "value": { "type": "string", "x-mcp-header": "Value" } },
                "required": ["value"],
            },
        },
        {
            "name": "json_schema_2020_12_tool",
            "description": "Has a schema of many words.",
            "inputSchema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "$defs": { "address": {
                    "$anchor": "address",
                    "type": "object",
                    "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
                } },
                "properties": {
                    "name": { "type": "string" }, "address": { "$ref": "#/$defs/address" },
                },
                "allOf": [{ "anyOf": [{ "required": ["name"] }, { "required": ["address"] }] }],
                "if": { "required": ["address"] },
                "then": { "properties": { "address": { "required": ["street"] } } },
                "else": { "required": ["name"] },
                "additionalProperties": false,
            },
        },
    ]);
    let plain = plain.iter().map(|name| {
        let schema = json!({ "type": "object", "properties": {} });
        read(json!({ "name": name, "description": "A fixture.", "inputSchema": schema }))
    });
    plain.chain(read::<Vec<Tool>>(schemas)).collect()
}

impl Fixtures {
    fn remember(&self, round: u64) -> String {
        let number = self.memory.next.fetch_add(1, Ordering::Relaxed);
        let state = format!("{:016x}-{number}", getrandom::u64().unwrap());
        self.memory.states.lock().unwrap().insert(state.clone(), round);
        state
    }

    /// The round that a state stands for; 0 without one.
    fn round(&self, state: Option<&str>) -> Result<u64, ErrorData> {
        let Some(state) = state else { return Ok(0) };
        let round = self.memory.states.lock().unwrap().get(state).copied();
        round.ok_or_else(|| ErrorData::invalid_params("requestState was not given out", None))
    }

    fn listeners(&self) -> Vec<SubscriptionSink> {
        self.memory.listeners.lock().unwrap().values().cloned().collect()
    }

    /// The tools that need something of the client first.
    fn ask(
        &self,
        request: &CallToolRequestParams,
        context: &Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let responses = request.input_responses.as_ref();
        let state = request.request_state.as_deref();
        let round = self.round(state)?;
        let name = request.name.trim_start_matches("test_input_required_result_");
        let one = |answer: &str, ask: Value| match answered(responses, answer) {
            Some(answer) => said(format!("The answer was {answer}.")),
            None => required(&json!({ answer: ask }), None).into(),
        };
        Ok(match name {
            "elicitation" => one("user_name", question("What is your name?", "name", "string")),
            "sampling" => one("capital_question", sample("What is the capital of France?")),
            "list_roots" => one("client_roots", roots()),
            "request_state" | "tampered_state" if state.is_some() => said("Confirmed: state-ok"),
            "request_state" | "tampered_state" => {
                let confirm = json!({ "confirm": question("Please confirm", "ok", "boolean") });
                required(&confirm, Some(self.remember(1))).into()
            }
            "multiple_inputs" => {
                let names = ["user_name", "greeting", "client_roots"];
                let is_complete = names.iter().all(|name| answered(responses, name).is_some());
                if is_complete && round > 0 {
                    said("All inputs received")
                } else {
                    let inputs = json!({
                        "user_name": question("What is your name?", "name", "string"),
                        "greeting": sample("Generate a greeting"),
                        "client_roots": roots(),
                    });
                    required(&inputs, Some(self.remember(1))).into()
                }
            }
            "multi_round" if round < 2 => {
                let (step, property) =
                    [("step1", "name"), ("step2", "color")][usize::from(round > 0)];
                let ask = json!({ step: question("One more thing", property, "string") });
                required(&ask, Some(self.remember(round + 1))).into()
            }
            "multi_round" => said("Multi-round flow complete"),
            "capabilities" => {
                let can = context.meta.client_capabilities().unwrap_or_default();
                let mut inputs = json!({});
                if can.elicitation.is_some() {
                    inputs["user_name"] = question("What is your name?", "name", "string");
                }
                if can.sampling.is_some() {
                    inputs["greeting"] = sample("Generate a greeting");
                }
                if can.roots.is_some() {
                    inputs["client_roots"] = roots();
                }
                if responses.is_some() || inputs == json!({}) {
                    said("Nothing is missing")
                } else {
                    required(&inputs, None).into()
                }
            }
            _ => return Err(ErrorData::invalid_params("no such tool", None)),
        })
    }
}

/// Asks the client on the far side of a session, as older revisions do.
async fn elicit(context: &Context, message: &str, schema: Value) -> CallToolResponse {
    let question = ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema: read(schema),
    });
    match context.peer.send_request(ServerRequest::ElicitRequest(question)).await {
        Ok(answer) => said(format!("User response: {}", serde_json::to_string(&answer).unwrap())),
        Err(error) => CallToolResult::error(read(json!([text(error.to_string())]))).into(),
    }
}

fn defaults() -> Value {
    json!({ "type": "object", "properties": {
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": {
            "type": "string", "enum": ["active", "inactive", "pending"], "default": "active",
        },
        "verified": { "type": "boolean", "default": true },
    } })
}

fn enums() -> Value {
    let options = |prefix: &str| {
        let option =
            |n: usize| json!({ "const": format!("value{n}"), "title": format!("{prefix} {n}") });
        json!([option(1), option(2), option(3)])
    };
    json!({ "type": "object", "properties": {
        "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
        "titledSingle": { "type": "string", "oneOf": options("Option") },
        "legacyEnum": {
            "type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {
            "type": "array",
            "items": { "type": "string", "enum": ["option1", "option2", "option3"] },
        },
        "titledMulti": { "type": "array", "items": { "anyOf": options("Choice") } },
    } })
}

async fn log(context: &Context, level: LoggingLevel, words: &str) {
    let message = LoggingMessageNotificationParam::new(level, json!(words));
    context.peer.notify_logging_message(message).await.unwrap();
}

#[expect(clippy::too_many_lines, reason = "a line or two for each tool")]
async fn call(
    fixtures: &Fixtures,
    request: CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let argument = |name: &str| {
        request.arguments.as_ref().and_then(|all| all.get(name)?.as_str()).unwrap_or_default()
    };
    Ok(match &*request.name {
        "test_simple_text" => said("This is a simple text response for testing."),
        "test_image_content" => content(&[image()]).into(),
        "test_audio_content" => {
            content(&[json!({ "type": "audio", "data": SOUND, "mimeType": "audio/wav" })]).into()
        }
        "test_embedded_resource" => content(&[embedded(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )])
        .into(),
        "test_multiple_content_types" => content(&[
            text("Multiple content types test:"),
            image(),
            embedded(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ])
        .into(),
        "test_error_handling" => CallToolResult::error(read(json!([text(
            "This tool intentionally returns an error for testing"
        )])))
        .into(),
        "test_tool_with_logging" => {
            for words in
                ["Tool execution started", "Tool processing data", "Tool execution completed"]
            {
                log(context, LoggingLevel::Info, words).await;
            }
            said("Logging test completed")
        }
        "test_logging_tool" => {
            if let Some(level) = context.meta.log_level() {
                log(context, level, "logLevel was requested").await;
            }
            said("Logging tool completed")
        }
        "test_tool_with_progress" => {
            for progress in [0.0, 50.0, 100.0] {
                if let Some(token) = context.meta.get_progress_token() {
                    let sign = ProgressNotificationParam::new(token, progress).with_total(100.0);
                    context.peer.notify_progress(sign).await.unwrap();
                }
            }
            said("Progress test completed")
        }
        "test_custom_header" => said(argument("value")),
        "json_schema_2020_12_tool" => said(format!("Hello, {}!", argument("name"))),
        "test_sampling" => {
            let messages = vec![SamplingMessage::user_text(argument("prompt"))];
            let asked = context.peer.create_message(CreateMessageRequestParams::new(messages, 100));
            match asked.await {
                Ok(answer) => {
                    let answer = serde_json::to_value(answer).unwrap();
                    said(format!("LLM response: {}", answer["content"]["text"]))
                }
                Err(error) => CallToolResult::error(read(json!([text(error.to_string())]))).into(),
            }
        }
        "test_elicitation" => {
            let schema = json!({
                "type": "object",
                "properties": { "username": { "type": "string" }, "email": { "type": "string" } },
                "required": ["username", "email"],
            });
            elicit(context, argument("message"), schema).await
        }
        "test_elicitation_sep1034_defaults" => elicit(context, "Defaults", defaults()).await,
        "test_elicitation_sep1330_enums" => elicit(context, "Enums", enums()).await,
        "test_reconnection" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            said("Reconnection test completed")
        }
        "test_trigger_tool_change" => {
            for listener in fixtures.listeners() {
                // Who did not want to know says so.
                drop(listener.notify_tool_list_changed().await);
            }
            said("Tool list change triggered")
        }
        "test_trigger_prompt_change" => {
            for listener in fixtures.listeners() {
                drop(listener.notify_prompt_list_changed().await);
            }
            said("Prompt list change triggered")
        }
        "test_missing_capability" => {
            if context.meta.client_capabilities().is_none_or(|can| can.sampling.is_none()) {
                return Err(ErrorData::missing_required_client_capability(
                    ClientCapabilities::builder().enable_sampling().build(),
                ));
            }
            said("Required capability declared")
        }
        "test_streaming_elicitation" => {
            let ask = question("Provide a value", "value", "string");
            required(&json!({ "streaming_elicitation": ask }), None).into()
        }
        _ => return fixtures.ask(&request, context),
    })
}

impl ServerHandler for Fixtures {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder()
                .enable_completions()
                .enable_logging()
                .enable_prompts()
                .enable_prompts_list_changed()
                .enable_resources()
                .enable_resources_subscribe()
                .enable_resources_list_changed()
                .enable_tools()
                .enable_tool_list_changed()
                .build(),
        )
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools().into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        call(self, request, &context).await
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(read(json!([
            { "uri": "test://static-text", "name": "Static text", "mimeType": "text/plain" },
            { "uri": "test://static-binary", "name": "Static binary", "mimeType": "image/png" },
        ]))))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(read(json!([{
            "uriTemplate": "test://template/{id}/data", "name": "Data by id",
            "mimeType": "application/json",
        }]))))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let id = uri.strip_prefix("test://template/").and_then(|it| it.strip_suffix("/data"));
        let content = match (uri, id) {
            ("test://static-text", _) => json!({
                "uri": uri, "mimeType": "text/plain",
                "text": "This is the content of the static text resource.",
            }),
            ("test://static-binary", _) => {
                json!({ "uri": uri, "mimeType": "image/png", "blob": IMAGE })
            }
            (_, Some(id)) => {
                let data =
                    json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "uri": uri, "mimeType": "application/json", "text": data.to_string() })
            }
            (_, None) => {
                let data = json!({ "uri": uri });
                return Err(ErrorData::resource_not_found("no such resource", Some(data)));
            }
        };
        let result: rmcp::model::ReadResourceResult =
            read(json!({ "resultType": "complete", "contents": [content] }));
        Ok(result.into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument = |name: &str, required: bool| json!({ "name": name, "description": "An argument.", "required": required });
        let prompt = |name: &str| json!({ "name": name, "description": "A fixture." });
        let mut with_arguments = prompt("test_prompt_with_arguments");
        with_arguments["arguments"] = json!([argument("arg1", true), argument("arg2", false)]);
        Ok(ListPromptsResult::with_all_items(read(json!([
            prompt("test_simple_prompt"),
            with_arguments,
            prompt("test_prompt_with_embedded_resource"),
            prompt("test_prompt_with_image"),
            prompt("test_input_required_result_prompt"),
        ]))))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let argument = |name: &str| {
            request.arguments.as_ref().and_then(|all| all.get(name)?.as_str()).unwrap_or_default()
        };
        let blocks = match &*request.name {
            "test_simple_prompt" => vec![text("This is a simple test prompt.")],
            "test_prompt_with_arguments" => {
                let (arg1, arg2) = (argument("arg1"), argument("arg2"));
                vec![text(format!("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]
            }
            "test_prompt_with_embedded_resource" => {
                let uri = argument("resourceUri");
                vec![embedded(uri, "text/plain", "Embedded"), text("Please look at it.")]
            }
            "test_prompt_with_image" => vec![image(), text("Please look at it.")],
            "test_input_required_result_prompt" => {
                let Some(answer) = answered(request.input_responses.as_ref(), "user_context")
                else {
                    let ask = question("What context should the prompt use?", "context", "string");
                    return Ok(required(&json!({ "user_context": ask }), None).into());
                };
                vec![text(format!("In the context of {answer}"))]
            }
            _ => return Err(ErrorData::invalid_params("no such prompt", None)),
        };
        let messages: Vec<_> =
            blocks.iter().map(|block| json!({ "role": "user", "content": block })).collect();
        let result: rmcp::model::GetPromptResult =
            read(json!({ "resultType": "complete", "messages": messages }));
        Ok(result.into())
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: Context,
    ) -> Result<CompleteResult, ErrorData> {
        let values = ["paris", "park", "party"].map(str::to_owned).into();
        Ok(CompleteResult::new(CompletionInfo::new(values).unwrap()))
    }

    async fn set_level(
        &self,
        _request: SetLevelRequestParams,
        _context: Context,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(
        &self,
        _request: SubscribeRequestParams,
        _context: Context,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _request: UnsubscribeRequestParams,
        _context: Context,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let number = self.memory.next.fetch_add(1, Ordering::Relaxed);
        self.memory.listeners.lock().unwrap().insert(number, context.sink().clone());
        context.cancelled().await;
        self.memory.listeners.lock().unwrap().remove(&number);
        Ok(())
    }
}

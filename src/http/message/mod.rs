//! A JSON-RPC message that has one meaning, read before a tenant's server sees a byte of it.
//!
//! ```text
//! bytes --Message::read--> Message    or Malformed: the JSON-RPC code, the id if there was one
//! ```
//!
//! Only this module makes a [`Message`], and only its bytes are handed on. Protects against: a
//! message that one reader takes for another than the next one does (members that come twice or
//! look like known ones, ids that do not come back as they were sent), against a choice of tenant
//! that nobody reads ([`params`]), and against answers that call a known method unknown because its
//! parameters did not fit. Does not look at the arguments of a tool: each tool has a schema for
//! those.

mod params;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use axum::body::Bytes;
use rmcp::model::{
    CompleteRequestParams, GetPromptRequestParams, InitializeRequestParams, PaginatedRequestParams,
    ReadResourceRequestParams, SubscribeRequestParams, SubscriptionsListenRequestParams,
    UnsubscribeRequestParams,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::json::{self, Flaw, Json, Kind};

/// The first revision without a handshake.
pub(super) const STATELESS: &str = "2026-07-28";
/// Methods that it removed.
const REMOVED: [&str; 4] =
    ["initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
/// Longest id that is a string, in bytes.
const MAX_ID: usize = 256;
/// Longest name of a method, in bytes.
const MAX_METHOD: usize = 128;

/// Where a request says which revision it speaks.
pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// Members that readers of this protocol know. Another spelling of one is taken for it by parsers
/// that ignore case.
const KNOWN: [&str; 28] = [
    "_meta",
    "argument",
    "arguments",
    "capabilities",
    "clientInfo",
    "context",
    "cursor",
    "error",
    "id",
    "inputResponses",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    VERSION_KEY,
    "jsonrpc",
    "level",
    "method",
    "name",
    "notifications",
    "params",
    "progressToken",
    "protocolVersion",
    "ref",
    "requestId",
    "requestState",
    "result",
    "taskId",
    "uri",
];

const LOG_LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// A message as it may be handed on.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Bytes,
    content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Call(Call),
    /// An answer to something that the server asked.
    Response,
}

/// A request, or a notification: what has no id.
#[derive(Debug)]
pub(crate) struct Call {
    /// A string or an integer.
    pub(crate) id: Option<Value>,
    pub(crate) method: String,
    /// What `Mcp-Name` repeats: the tool, the prompt, the URI.
    pub(crate) name: Option<String>,
    /// The revision that `_meta` names.
    pub(crate) version: Option<String>,
    /// The id of the call that the sender does not want any more.
    pub(crate) cancels: Option<Box<Value>>,
}

/// Why a body is no message.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(super) problem: Problem,
    /// Of the message, if it could be read.
    pub(crate) id: Value,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Problem {
    #[error("batches are not served; send one message in each request")]
    Batch,
    #[error("the message is nested deeper than {max} levels", max = json::MAX_DEPTH)]
    Depth,
    #[error("a member comes twice in one object")]
    Duplicate,
    #[error("the body is empty; it has to be one JSON-RPC message")]
    Empty,
    #[error("the body is not UTF-8")]
    Encoding,
    #[error("\"id\" has to be an integer of 64 bits or a string of at most {MAX_ID} bytes")]
    Id,
    #[error("a member is spelled almost like one of the protocol; names are exact, also in case")]
    Lookalike,
    #[error("a message has a member that JSON-RPC does not know")]
    Member,
    #[error("\"method\" has to be a string of at most {MAX_METHOD} bytes")]
    Method,
    #[error("a number does not fit into 64 bits")]
    Number,
    #[error("a message is an object")]
    Object,
    #[error("\"params\" has to be an object, with \"_meta\" an object")]
    Params,
    #[error("\"params\" has a member that the method does not have")]
    Parameter,
    #[error("the method needs other \"params\"")]
    Parameters,
    #[error("\"progressToken\" has to be a string or an integer of 64 bits")]
    ProgressToken,
    #[error("\"params\" cannot choose a tenant; the token says which")]
    Tenant,
    #[error("the call needs the \"name\" of a tool, and \"arguments\" that are an object")]
    ToolCall,
    #[error("a message has \"method\", or \"id\" and either \"result\" or \"error\"")]
    Shape,
    #[error("the body is not one JSON value")]
    Syntax,
    #[error("the message has more than {max} values", max = json::MAX_VALUES)]
    Values,
    #[error("\"jsonrpc\" has to be \"2.0\"")]
    Version,
}

impl Problem {
    /// The code of JSON-RPC.
    pub(super) fn rpc_code(self) -> i32 {
        match self {
            Self::Empty | Self::Encoding | Self::Syntax => -32_700,
            Self::Batch
            | Self::Depth
            | Self::Duplicate
            | Self::Id
            | Self::Lookalike
            | Self::Member
            | Self::Method
            | Self::Number
            | Self::Object
            | Self::Shape
            | Self::Values
            | Self::Version => -32_600,
            Self::Params
            | Self::Parameter
            | Self::Parameters
            | Self::ProgressToken
            | Self::Tenant
            | Self::ToolCall => -32_602,
        }
    }

    /// The rule for the audit log, of what no client sends by mistake.
    pub(super) fn rule(self) -> Option<&'static str> {
        match self {
            Self::Duplicate => Some("duplicate-key"),
            Self::Lookalike => Some("lookalike-key"),
            Self::Parameter => Some("unknown-parameter"),
            Self::Tenant => Some("tenant-argument"),
            Self::Batch
            | Self::Depth
            | Self::Empty
            | Self::Encoding
            | Self::Id
            | Self::Member
            | Self::Method
            | Self::Number
            | Self::Object
            | Self::Params
            | Self::Parameters
            | Self::ProgressToken
            | Self::ToolCall
            | Self::Shape
            | Self::Syntax
            | Self::Values
            | Self::Version => None,
        }
    }
}

impl From<Flaw> for Problem {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Depth => Self::Depth,
            Flaw::Duplicate => Self::Duplicate,
            Flaw::Number => Self::Number,
            Flaw::Syntax => Self::Syntax,
            Flaw::Values => Self::Values,
        }
    }
}

impl Message {
    /// Reads the body of a request.
    pub(crate) fn read(bytes: Bytes) -> Result<Self, Malformed> {
        let mut id = Value::Null;
        match read(&bytes, &mut id) {
            Ok(content) => Ok(Self { bytes, content }),
            Err(problem) => Err(Malformed { problem, id }),
        }
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// What it asks for or tells; `None` of a response.
    pub(crate) fn call(&self) -> Option<&Call> {
        match &self.content {
            Content::Call(call) => Some(call),
            Content::Response => None,
        }
    }

    /// The id of the request that it is; null of anything else.
    pub(crate) fn id(&self) -> Value {
        self.call().and_then(|call| call.id.clone()).unwrap_or_default()
    }

    /// What it asked for or told; `None` of a response.
    pub(crate) fn into_call(self) -> Option<Call> {
        match self.content {
            Content::Call(call) => Some(call),
            Content::Response => None,
        }
    }

    /// The bytes that were read.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<Json<'a>>,
    id: Option<Json<'a>>,
    method: Option<Json<'a>>,
    params: Option<Json<'a>>,
    result: Option<Json<'a>>,
    error: Option<Json<'a>>,
}

/// Leaves in `id` the id for the answer, as soon as it is known.
fn read(bytes: &[u8], id: &mut Value) -> Result<Content, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::Encoding)?;
    let message = Json::check(text)?;
    match message.kind() {
        Kind::Object => {}
        Kind::Array => return Err(Problem::Batch),
        Kind::Boolean | Kind::Null | Kind::Number | Kind::String => return Err(Problem::Object),
    }
    let mut envelope = Envelope::default();
    let mut unknown = Ok(());
    for member in message.members() {
        match &*member.key {
            "jsonrpc" => envelope.jsonrpc = Some(member.value),
            "id" => envelope.id = Some(member.value),
            "method" => envelope.method = Some(member.value),
            "params" => envelope.params = Some(member.value),
            "result" => envelope.result = Some(member.value),
            "error" => envelope.error = Some(member.value),
            key if looks_known(key) => unknown = Err(Problem::Lookalike),
            _ => unknown = unknown.and(Err(Problem::Member)),
        }
    }
    if let Some(sent) = envelope.id {
        *id = read_id(sent).ok_or(Problem::Id)?;
    }
    unknown?;
    if envelope.jsonrpc.and_then(Json::string).as_deref() != Some("2.0") {
        return Err(Problem::Version);
    }
    match envelope {
        Envelope { method: Some(method), id: sent, params, result: None, error: None, .. } => {
            let method = method.string().filter(|method| method.len() <= MAX_METHOD);
            let method = method.ok_or(Problem::Method)?.into_owned();
            let id = sent.map(|_| id.clone());
            read_call(id, method, params).map(Content::Call)
        }
        Envelope {
            id: Some(_), method: None, params: None, result: Some(_), error: None, ..
        } => Ok(Content::Response),
        // Of an error, the id may be missing: what could not be read had none.
        Envelope { method: None, params: None, result: None, error: Some(error), .. }
            if error.member("code").and_then(Json::integer).is_some()
                && error.member("message").and_then(Json::string).is_some() =>
        {
            Ok(Content::Response)
        }
        _ => Err(Problem::Shape),
    }
}

fn read_id(id: Json<'_>) -> Option<Value> {
    if let Some(integer) = id.integer() {
        return Some(integer.into());
    }
    id.string().filter(|id| id.len() <= MAX_ID).map(|id| Value::from(&*id))
}

fn read_call(id: Option<Value>, method: String, params: Option<Json<'_>>) -> Result<Call, Problem> {
    let members = match params {
        Some(params) if params.kind() == Kind::Object => params.members(),
        Some(_) => return Err(Problem::Params),
        None => Vec::new(),
    };
    let member = |key: &str| members.iter().find(|it| it.key == key).map(|it| it.value);
    let meta = match member("_meta") {
        Some(meta) if meta.kind() == Kind::Object => meta.members(),
        Some(meta) if meta.kind() != Kind::Null => return Err(Problem::Params),
        _ => Vec::new(),
    };
    if members.iter().chain(&meta).any(|member| looks_known(&member.key)) {
        return Err(Problem::Lookalike);
    }
    let version = meta.iter().find(|member| member.key == VERSION_KEY);
    let version = version.map(|it| it.value.string().ok_or(Problem::Params)).transpose()?;
    let is_token = |it: Json<'_>| it.integer().is_some() || it.kind() == Kind::String;
    if meta.iter().any(|member| member.key == "progressToken" && !is_token(member.value)) {
        return Err(Problem::ProgressToken);
    }
    // A notification is never answered, whatever is in it.
    if id.is_some() {
        if !is_removed(&method, version.as_deref()) {
            params::check(&method, &members)?;
        }
        if method == "tools/call" {
            let is_optional = |key: &str, kind: Kind| {
                member(key).is_none_or(|it| it.kind() == kind || it.kind() == Kind::Null)
            };
            let fits = member("name").is_some_and(|name| name.kind() == Kind::String)
                && is_optional("arguments", Kind::Object)
                && is_optional("inputResponses", Kind::Object)
                && is_optional("requestState", Kind::String);
            if !fits {
                return Err(Problem::ToolCall);
            }
        } else if !is_removed(&method, version.as_deref()) && !fits(&method, params) {
            return Err(Problem::Parameters);
        }
    }
    let name = match &*method {
        "tools/call" | "prompts/get" => member("name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => member("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => member("taskId"),
        _ => None,
    };
    let name = name.and_then(Json::string).map(Cow::into_owned);
    let is_cancellation = id.is_none() && method == "notifications/cancelled";
    let cancels = member("requestId").filter(|_| is_cancellation).and_then(read_id).map(Box::new);
    Ok(Call { id, method, name, version: version.map(Cow::into_owned), cancels })
}

/// Whether `method` is not any more in `version`: it is unknown there, whatever its parameters are.
fn is_removed(method: &str, version: Option<&str>) -> bool {
    version.is_some_and(|version| version >= STATELESS) && REMOVED.contains(&method)
}

/// Whether `params` are ones of `method`, if that is a known one. The types are those that its
/// handler is given; what they do not take would be answered as an unknown method.
fn fits(method: &str, params: Option<Json<'_>>) -> bool {
    fn is<T: DeserializeOwned>(params: Option<Json<'_>>) -> bool {
        params.is_some_and(|params| serde_json::from_str::<T>(params.text()).is_ok())
    }
    match method {
        "completion/complete" => is::<CompleteRequestParams>(params),
        "initialize" => is::<InitializeRequestParams>(params),
        "logging/setLevel" => params
            .and_then(|params| params.member("level")?.string())
            .is_some_and(|level| LOG_LEVELS.contains(&&*level)),
        "prompts/get" => is::<GetPromptRequestParams>(params),
        "prompts/list" | "resources/list" | "resources/templates/list" | "tools/list" => {
            params.is_none() || is::<PaginatedRequestParams>(params)
        }
        "resources/read" => is::<ReadResourceRequestParams>(params),
        "resources/subscribe" => is::<SubscribeRequestParams>(params),
        "resources/unsubscribe" => is::<UnsubscribeRequestParams>(params),
        "subscriptions/listen" => is::<SubscriptionsListenRequestParams>(params),
        _ => true,
    }
}

/// Whether `key` is not a known member and would be one if case did not matter.
fn looks_known(key: &str) -> bool {
    if KNOWN.contains(&key) {
        return false;
    }
    // To both cases, as some letters beyond ASCII have one of ASCII as their other case: ſ and K.
    let folded = if key.is_ascii() {
        Cow::Borrowed(key)
    } else {
        Cow::Owned(key.to_uppercase().to_lowercase())
    };
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(&folded))
}

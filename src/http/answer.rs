//! Puts the rows of an answer where the mark of its [`Attachment`] is.
//!
//! ```text
//! {"content":[{"text":"{…\"rows\":\"MARK\"…}"}],"structuredContent":{…"rows":"MARK"…}}
//!                                escaped once more                         as they are
//! ```
//!
//! The rows are in memory once, in a buffer that is written as it is; their escaped copy is made piece by piece as the
//! connection takes it. They count against the share of their tenant until then.

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};

use super::budget::Share;
use crate::error::Bound;
use crate::server::Attachment;

/// What is made of the escaped copy at a time, and what is written in one piece.
const PIECE: usize = 64 << 10;

/// `response` with the rows of `attachment` in it, should there be any when its text comes. Rows
/// for which `share` has no room then cut it; where they are there by now, there is none.
pub(super) fn with_rows(
    response: Response,
    attachment: Attachment,
    share: Share,
) -> Result<Response, Bound> {
    let (mut parts, body) = response.into_parts();
    let take = move || {
        let Some((mark, rows)) = attachment.take() else { return Ok(None) };
        Ok::<_, Bound>(Some((mark, share.keep(rows.into_json().into())?)))
    };
    let mut attached = take()?;
    let frames = body.into_data_stream().flat_map(move |frame| {
        let text = frame.and_then(|text| {
            // A notification may go before the answer.
            if attached.is_none() {
                attached = take().map_err(axum::Error::new)?;
            }
            Ok(text)
        });
        let pieces: Box<dyn Iterator<Item = _> + Send> = match text {
            Ok(text) => match attached.take_if(|(mark, _)| find(&text, mark).is_some()) {
                Some((mark, rows)) => Box::new(joined(text, &mark, &rows).map(Ok)),
                None => Box::new(std::iter::once(Ok(text))),
            },
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        stream::iter(pieces)
    });
    // Of the text without the rows.
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from_stream(frames)))
}

/// A part of an answer.
enum Part {
    Plain(Bytes),
    /// JSON that stands in a JSON string.
    Escaped(Bytes),
}

impl Part {
    fn pieces(self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        match self {
            Self::Plain(text) => Box::new(std::iter::once(text)),
            Self::Escaped(text) => {
                let starts = (0..text.len()).step_by(PIECE);
                Box::new(starts.map(move |start| {
                    escape(text.get(start..).map_or(&[], |rest| &rest[..rest.len().min(PIECE)]))
                }))
            }
        }
    }
}

/// `text` with `rows` in place of each string that is `mark`.
fn joined(text: Bytes, mark: &str, rows: &Bytes) -> impl Iterator<Item = Bytes> + Send + use<> {
    let is_small = text.len() + 3 * rows.len() <= PIECE;
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(place) = find(&rest, mark) {
        // The quotation marks of the string, which are escaped themselves inside of a string.
        let quote = if rest[..place].ends_with(b"\\\"") { 2 } else { 1 };
        parts.push(Part::Plain(rest.slice(..place - quote)));
        parts.push(if quote == 1 {
            Part::Plain(rows.clone())
        } else {
            Part::Escaped(rows.clone())
        });
        rest = rest.slice(place + mark.len() + quote..);
    }
    parts.push(Part::Plain(rest));
    let pieces = parts.into_iter().flat_map(Part::pieces);
    let pieces: Box<dyn Iterator<Item = Bytes> + Send> = if is_small {
        Box::new(std::iter::once(pieces.collect::<Vec<_>>().concat().into()))
    } else {
        Box::new(pieces)
    };
    pieces
}

/// Where the string that is `mark` stands in `text`, behind its quotation mark.
fn find(text: &[u8], mark: &str) -> Option<usize> {
    let quoted = [b"\"", mark.as_bytes()].concat();
    text.windows(quoted.len()).position(|window| window == quoted).map(|place| place + 1)
}

/// JSON as it stands in a JSON string: there are no control characters in it.
fn escape(json: &[u8]) -> Bytes {
    let mut escaped = Vec::with_capacity(json.len() + json.len() / 4);
    for &byte in json {
        if matches!(byte, b'"' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What `rmcp` makes of an answer with `rows`.
    fn written(rows: &Value) -> Value {
        let structured = json!({ "columns": ["a\"b"], "rows": rows, "row_count": 2 });
        json!({
            "id": "rows-1", "result": {
                "content": [{ "type": "text", "text": structured.to_string() }],
                "structuredContent": structured,
            },
        })
    }

    #[test]
    fn rows_stand_where_they_would_have_in_the_tree() {
        for length in [0, 1, 3_000, 100_000] {
            let rows: Vec<Value> = (0..length)
                .map(|n| json!([n, "a \"quoted\" \\ text\n, é, \u{7f}", null]))
                .collect();
            let rows = Value::from(rows);
            let text = Bytes::from(written(&json!("rows-0123")).to_string());
            let pieces: Vec<Bytes> = joined(text, "rows-0123", &rows.to_string().into()).collect();
            assert_eq!(pieces.len() > 1, length >= 3_000);
            let answer: Value = serde_json::from_slice(&pieces.concat()).unwrap();
            assert!(answer == written(&rows), "{length}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_rows_is_passed_on_as_it_is() {
        let response = Response::new(Body::from("{\"rows\":\"rows-0123\"}"));
        let response = with_rows(response, Attachment::default(), Share::of_a_test()).unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        assert_eq!(body, "{\"rows\":\"rows-0123\"}");
    }
}

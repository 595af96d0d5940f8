//! Listings in pieces: each answer says where the next one begins.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Admin, Error, describe};
use crate::audit::Filter;

/// Items of a page of which nothing else is said.
const DEFAULT_LIMIT: u32 = 100;
/// Most items of a page. Each page of tenants costs a look at all of them, so whoever wants all asks for
/// large ones.
pub(crate) const MAX_LIMIT: u32 = 10_000;
/// Longest cursor that is looked at.
const MAX_CURSOR: usize = 512;

/// Which part of a listing is meant.
#[derive(Debug)]
pub(super) struct Page {
    /// Of what; a cursor of another listing is refused.
    listing: &'static str,
    /// The place behind which it begins.
    after: Option<String>,
    limit: usize,
}

impl Page {
    pub(super) fn new(
        listing: &'static str,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Self, Error> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::InvalidCommand("a limit is between 1 and 10000"));
        }
        let invalid =
            Error::InvalidCommand("the cursor is none of this listing; begin without one");
        let after = match cursor {
            None => None,
            Some(cursor) => Some(decode(listing, cursor).ok_or(invalid)?),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self { listing, after, limit })
    }

    /// The page of `items`, which come in the order of the places that they are given with.
    fn of(&self, items: impl Iterator<Item = (String, Value)>) -> Value {
        let is_ahead = |(place, _): &(String, Value)| {
            self.after.as_ref().is_none_or(|after| place.as_str() > after.as_str())
        };
        let mut items = items.filter(is_ahead);
        let mut last = None;
        let page: Vec<Value> = items
            .by_ref()
            .take(self.limit)
            .map(|(place, item)| {
                last = Some(place);
                item
            })
            .collect();
        let next = items.next().and(last).map(|place| encode(self.listing, &place));
        json!({ self.listing: page, "next_cursor": next })
    }
}

fn encode(listing: &str, place: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{listing}\0{place}"))
}

fn decode(listing: &str, cursor: &str) -> Option<String> {
    if cursor.len() > MAX_CURSOR {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix(listing)?.strip_prefix('\0').map(str::to_owned)
}

impl Admin {
    pub(super) fn list_tenants(&self, page: &Page) -> Result<Value, Error> {
        let tenants = self.tenants()?;
        Ok(page.of(tenants.iter().map(|it| (it.id.to_string(), describe::summary(it)))))
    }

    /// Those that open, oldest first, then the others.
    pub(super) fn list_tokens(&self, page: &Page) -> Result<Value, Error> {
        let (tokens, damaged) = (self.tokens()?, self.damaged_tokens()?);
        let mut items: Vec<_> = tokens
            .iter()
            .map(|token| {
                let moment = token.created_at.as_nanosecond();
                (format!("{moment:020}{}", token.token_id), describe::token(token))
            })
            .chain(damaged.iter().map(|name| (format!("~{name}"), describe::damaged_token(name))))
            .collect();
        items.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(page.of(items.into_iter()))
    }

    pub(super) fn list_audit(&self, filter: Filter, page: &Page) -> Result<Value, Error> {
        let after = page.after.as_deref().map_or(Some(0), |after| after.parse().ok());
        let after = after.ok_or(Error::InvalidCommand("the cursor is none of this listing"))?;
        let mut entries = Vec::new();
        let mut failure = None;
        let read = self.audit_entries(Filter { after, ..filter })?;
        for entry in read.take(page.limit + 1) {
            match entry {
                Ok(entry) => entries.push((format!("{:020}", entry.seq), json!(entry))),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // What is whole before a damaged line is told first.
        match failure {
            Some(error) if entries.is_empty() => Err(error.into()),
            Some(_) | None => Ok(page.of(entries.into_iter())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: usize) -> impl Iterator<Item = (String, Value)> {
        (0..count).map(|number| (format!("{number:04}"), json!(number)))
    }

    #[test]
    fn the_pages_of_a_listing_are_the_listing() {
        for count in [0, 1, 2, 3, 4, 7] {
            let (mut cursor, mut all) = (None::<String>, Vec::new());
            loop {
                let page = Page::new("tenants", cursor.as_deref(), Some(3)).unwrap();
                let answer = page.of(items(count));
                let page = answer["tenants"].as_array().unwrap();
                assert!(page.len() <= 3);
                all.extend(page.iter().map(|it| it.as_u64().unwrap()));
                match answer["next_cursor"].as_str() {
                    Some(next) => cursor = Some(next.to_owned()),
                    None => break,
                }
            }
            assert!(all.into_iter().eq(0..count as u64));
        }
    }

    #[test]
    fn a_cursor_that_was_not_given_for_this_listing_is_refused() {
        let of_tokens = encode("tokens", "0001");
        Page::new("tokens", Some(&of_tokens), None).unwrap();
        for cursor in [of_tokens.as_str(), "", "no cursor", "//", &"A".repeat(2_000)] {
            Page::new("tenants", Some(cursor), None).unwrap_err();
        }
        for limit in [0, MAX_LIMIT + 1, u32::MAX] {
            Page::new("tenants", None, Some(limit)).unwrap_err();
        }
        Page::new("tenants", None, Some(MAX_LIMIT)).unwrap();
    }
}

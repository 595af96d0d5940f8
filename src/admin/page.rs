//! Listings in pieces: each answer says where the next one begins.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Admin, Error, describe};
use crate::audit::Filter;

/// Items of a page of which nothing else is said.
const DEFAULT_LIMIT: u32 = 100;
/// Most items of a page.
pub(crate) const MAX_LIMIT: u32 = 10_000;
/// Longest cursor that is looked at.
const MAX_CURSOR: usize = 512;

const INVALID_CURSOR: Error =
    Error::InvalidCommand("the cursor is none of this listing; begin without one");

/// Which part of a listing is meant.
#[derive(Debug)]
pub(super) struct Page {
    /// Of what; a cursor of another listing is refused.
    listing: &'static str,
    /// The place behind which it begins.
    after: Option<Vec<u8>>,
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
        let decode = |cursor| decode(listing, cursor).ok_or(INVALID_CURSOR);
        let after = cursor.map(decode).transpose()?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self { listing, after, limit })
    }

    /// The place behind which it begins.
    fn after<P: for<'a> TryFrom<&'a [u8]>>(&self) -> Result<Option<P>, Error> {
        let place = |after| P::try_from(after).map_err(|_| INVALID_CURSOR);
        self.after.as_deref().map(place).transpose()
    }

    /// How many items say what is on it, and whether it is the last one.
    fn needed(&self) -> usize {
        self.limit + 1
    }

    /// The page of the first [`Self::needed`] `items` there are, each with its place.
    fn of(&self, items: impl IntoIterator<Item = (impl AsRef<[u8]>, Value)>) -> Value {
        let mut items = items.into_iter();
        let mut last = None;
        let page: Vec<Value> = items
            .by_ref()
            .take(self.limit)
            .map(|(place, item)| {
                last = Some(place);
                item
            })
            .collect();
        let next = items.next().and(last).map(|place| encode(self.listing, place.as_ref()));
        json!({ self.listing: page, "next_cursor": next })
    }
}

fn encode(listing: &str, place: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([listing.as_bytes(), b"\0", place].concat())
}

fn decode(listing: &str, cursor: &str) -> Option<Vec<u8>> {
    if cursor.len() > MAX_CURSOR {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    bytes.strip_prefix(listing.as_bytes())?.strip_prefix(b"\0").map(<[u8]>::to_vec)
}

impl Admin {
    pub(super) fn list_tenants(&self, page: &Page) -> Result<Value, Error> {
        let tenants = self.vault.tenants_after(page.after()?, page.needed())?;
        Ok(page.of(tenants.iter().map(|(place, it)| (place.as_bytes(), describe::summary(it)))))
    }

    pub(super) fn list_tokens(&self, page: &Page) -> Result<Value, Error> {
        let tokens = self.auth.tokens_after(page.after()?, page.needed())?;
        let items = tokens.iter().map(|(place, token)| {
            let item = match token {
                Ok(token) => describe::token(token),
                Err(name) => describe::damaged_token(name),
            };
            (place.as_bytes(), item)
        });
        Ok(page.of(items))
    }

    pub(super) fn list_audit(&self, filter: Filter, page: &Page) -> Result<Value, Error> {
        let after = page.after()?.map_or(0, u64::from_be_bytes);
        let mut entries = Vec::new();
        let mut failure = None;
        let read = self.audit_entries(Filter { after, ..filter })?;
        for entry in read.take(page.needed()) {
            match entry {
                Ok(entry) => entries.push((entry.seq.to_be_bytes(), json!(entry))),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // What is whole before a damaged line is told first.
        match failure {
            Some(error) if entries.is_empty() => Err(error.into()),
            Some(_) | None => Ok(page.of(entries)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_a_listing_are_the_listing() {
        for count in [0, 1, 2, 3, 4, 7] {
            let (mut cursor, mut all) = (None::<String>, Vec::new());
            loop {
                let page = Page::new("tenants", cursor.as_deref(), Some(3)).unwrap();
                let first = page.after().unwrap().map_or(0, |after| u64::from_be_bytes(after) + 1);
                let items = (first..count).map(|number| (number.to_be_bytes(), json!(number)));
                let answer = page.of(items.take(page.needed()));
                let page = answer["tenants"].as_array().unwrap();
                assert!(page.len() <= 3);
                all.extend(page.iter().map(|it| it.as_u64().unwrap()));
                match answer["next_cursor"].as_str() {
                    Some(next) => cursor = Some(next.to_owned()),
                    None => break,
                }
            }
            assert!(all.into_iter().eq(0..count));
        }
    }

    #[test]
    fn a_cursor_that_was_not_given_for_this_listing_is_refused() {
        let of_tokens = encode("tokens", &[0; 8]);
        let page = Page::new("tokens", Some(&of_tokens), None).unwrap();
        assert_eq!(page.after::<[u8; 8]>().unwrap(), Some([0; 8]));
        page.after::<[u8; 16]>().unwrap_err();
        for cursor in [of_tokens.as_str(), "", "no cursor", "//", &"A".repeat(2_000)] {
            Page::new("tenants", Some(cursor), None).unwrap_err();
        }
        for limit in [0, MAX_LIMIT + 1, u32::MAX] {
            Page::new("tenants", None, Some(limit)).unwrap_err();
        }
        Page::new("tenants", None, Some(MAX_LIMIT)).unwrap();
    }
}

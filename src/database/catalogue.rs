//! What a database has to read: names first, and what stands behind a name for those asked about.
//!
//! ```text
//! Database::catalogue(access) --> Arc<Catalogue>    names and kinds, kept while nothing changes
//! Database::describe(access, names) --> Relation…   columns, keys, comments: a page's worth
//! ```
//!
//! A listing of 10,000 tables needs all names for each page, to know which come next, and the columns
//! of a hundred. So names are kept in the session, and asked for again when the database says that
//! they changed; all else is asked for when it is shown.

use std::sync::Arc;

use crate::tenant::{Access, RelationName, Resource};

/// The relations that `access` allows and the role may read, in name order: those of the tenant's
/// own schema first, then by schema. Names are compared as bytes, so that the order is the same
/// whatever the database's collation.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Catalogue(Vec<Listed>);

/// One relation of a [`Catalogue`].
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever stands in for a database")]
pub struct Listed {
    /// Without a schema when it is in the tenant's own.
    pub name: RelationName,
    /// What it is.
    pub kind: RelationKind,
}

impl Listed {
    /// As a URI names it.
    pub fn resource(&self) -> Resource {
        self.kind.resource(self.name.clone())
    }
}

impl RelationKind {
    /// The resource that is a relation of this kind.
    pub fn resource(self, name: RelationName) -> Resource {
        match self {
            Self::Table => Resource::Table(name),
            Self::View => Resource::View(name),
        }
    }

    /// The word for it in URIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
        }
    }
}

/// Which of the two resource types a relation is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the two resource types of a URI")]
pub enum RelationKind {
    /// A table: ordinary, partitioned, foreign or virtual.
    Table,
    /// A view, materialized ones included.
    View,
}

/// A table or view that `access` allows. Columns that are denied, or that the role may not read,
/// are in none of its parts.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Relation {
    /// Without a schema when it is in the tenant's own.
    pub name: RelationName,
    /// What it is.
    pub kind: RelationKind,
    /// The comment that the database has on it; its first 1,000 characters.
    pub description: Option<String>,
    /// The columns that may be read, in order.
    pub columns: Vec<RelationColumn>,
    /// Its columns in the key's order; empty when there is none to show.
    pub primary_key: Vec<String>,
    /// What else is unique, each in the key's order.
    pub unique_keys: Vec<Vec<String>>,
    /// References to relations that `access` allows.
    pub foreign_keys: Vec<ForeignKey>,
    /// As the engine's statistics have it. `None` when there are none, for views, and where
    /// row-level security hides rows: the figure counts those too.
    pub estimated_rows: Option<u64>,
}

/// A column of a relation.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RelationColumn {
    /// Its name.
    pub name: String,
    /// Its type as the engine spells it; empty when `SQLite` declares none.
    pub type_name: String,
    /// Whether nothing declared keeps NULL out.
    pub nullable: bool,
    /// Whether the engine fills it in when an INSERT does not: by a default, a sequence, or an
    /// expression.
    pub has_default: bool,
    /// The comment that the database has on it; its first 300 characters.
    pub description: Option<String>,
}

/// A reference from some columns to as many of another relation.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ForeignKey {
    /// The columns that refer.
    pub columns: Vec<String>,
    /// To which relation; without a schema when it is in the tenant's own.
    pub relation: RelationName,
    /// To which of its columns.
    pub referenced: Vec<String>,
}

impl Catalogue {
    /// The catalogue of `relations`, in whatever order they come.
    pub fn new(mut relations: Vec<Listed>) -> Self {
        relations.sort_unstable();
        relations.dedup_by(|one, other| one.name == other.name);
        relations.shrink_to_fit();
        Self(relations)
    }

    /// All of them, in order.
    pub fn relations(&self) -> &[Listed] {
        &self.0
    }

    /// Those that come after `name`, which need not be there.
    pub fn after(&self, name: &RelationName) -> &[Listed] {
        let begin = self.0.partition_point(|listed| listed.name <= *name);
        self.0.get(begin..).unwrap_or_default()
    }

    /// The relation of this name.
    pub fn find(&self, name: &RelationName) -> Option<&Listed> {
        let place = self.0.binary_search_by(|listed| listed.name.cmp(name)).ok()?;
        self.0.get(place)
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        let text = |name: &RelationName| {
            name.name.capacity() + name.schema.as_ref().map_or(0, String::capacity)
        };
        self.0.iter().map(|listed| size_of::<Listed>() + text(&listed.name)).sum()
    }
}

impl Relation {
    /// A relation of which no more is known.
    pub fn new(name: RelationName, kind: RelationKind) -> Self {
        Self {
            name,
            kind,
            description: None,
            columns: Vec::new(),
            primary_key: Vec::new(),
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            estimated_rows: None,
        }
    }

    /// Whether all of `columns` may be read: a key is shown whole or not at all.
    pub(super) fn shows(&self, columns: &[String]) -> bool {
        !columns.is_empty()
            && columns.iter().all(|wanted| self.columns.iter().any(|column| column.name == *wanted))
    }
}

/// Most memory that a session keeps names in.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// The last catalogue of a session, and what the database said of itself then.
#[derive(Debug, Default)]
pub(super) struct Kept<State>(Option<(State, Access, Arc<Catalogue>)>);

impl<State: Eq> Kept<State> {
    /// The catalogue, if the database still says the same.
    pub(super) fn get(&self, state: &State, access: &Access) -> Option<Arc<Catalogue>> {
        let (kept_state, kept_access, catalogue) = self.0.as_ref()?;
        (kept_state == state && kept_access == access).then(|| Arc::clone(catalogue))
    }

    /// Keeps `catalogue`, unless it takes too much memory.
    pub(super) fn put(
        &mut self,
        state: State,
        access: &Access,
        catalogue: Catalogue,
    ) -> Arc<Catalogue> {
        let fits = catalogue.bytes() <= MAX_KEPT_BYTES;
        let catalogue = Arc::new(catalogue);
        self.0 = fits.then(|| (state, access.clone(), Arc::clone(&catalogue)));
        catalogue
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(schema: Option<&str>, name: &str) -> Listed {
        let name = RelationName { schema: schema.map(str::to_owned), name: name.to_owned() };
        Listed { name, kind: RelationKind::Table }
    }

    #[test]
    fn a_catalogue_is_kept_until_the_state_or_the_access_changes() {
        let mut kept = Kept::default();
        let access = Access::default();
        assert_eq!(kept.get(&1, &access), None);
        let catalogue = kept.put(1, &access, Catalogue::new(vec![listed(None, "a")]));
        assert_eq!(kept.get(&1, &access), Some(catalogue));
        assert_eq!(kept.get(&2, &access), None);
        let other = Access { tables: Some(vec![]), ..Access::default() };
        assert_eq!(kept.get(&1, &other), None);
    }

    #[test]
    fn a_catalogue_beyond_the_bound_is_given_out_and_not_kept() {
        let mut kept = Kept::default();
        let access = Access::default();
        let of = |count: usize| {
            let name = |number| listed(None, &format!("{number:063}"));
            Catalogue::new((0..count).map(name).collect())
        };
        let large = kept.put(1, &access, of(60_000));
        assert_eq!(large.relations().len(), 60_000);
        assert_eq!(kept.get(&1, &access), None);
        kept.put(1, &access, of(10_000));
        assert!(kept.get(&1, &access).is_some());
    }

    proptest! {
        #[test]
        fn what_comes_after_a_name_is_the_rest_whether_the_name_is_there_or_not(
            names in proptest::collection::vec(
                (proptest::option::of("[a-c]{1,2}"), "[a-d\"%_é]{1,3}"), 0..40),
            place in (proptest::option::of("[a-c]{1,2}"), "[a-d\"%_é]{1,3}"),
        ) {
            let relations = names.iter().map(|(schema, name)| listed(schema.as_deref(), name));
            let catalogue = Catalogue::new(relations.collect());
            let place = listed(place.0.as_deref(), &place.1).name;
            let after = catalogue.after(&place);
            prop_assert!(after.iter().all(|listed| listed.name > place));
            let before = catalogue.relations().len() - after.len();
            prop_assert!(catalogue.relations()[..before].iter().all(|it| it.name <= place));
        }
    }
}

//! Pages of lists: `limit`, `offset`, `page`, `sort`, and the envelope that lists come in.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::HttpDoor;
use super::error::ApiError;
use super::extract::Params;
use crate::error::{Error, ErrorKind};

/// What part of a list is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// Entries at most; more than api.max_page_size is taken as that.
    #[param(minimum = 1, default = 50)]
    limit: Option<u32>,
    /// Another name of limit, which goes before it.
    #[param(minimum = 1)]
    page_size: Option<u32>,
    /// Entries left out at the beginning.
    #[param(default = 0)]
    offset: Option<u32>,
    /// Number of the page, from 1; offset goes before it.
    #[param(minimum = 1)]
    page: Option<u32>,
}

/// In which order.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SortQuery {
    /// Fields of the entries with commas between, the most important first; `-` before one turns
    /// its order around.
    #[param(example = "-name")]
    sort: Option<String>,
}

/// Fields that one list is sorted by.
const MAX_TERMS: usize = 8;

/// A field that a list is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Name.
    pub field: String,
    /// The largest comes first, and nothing before it.
    pub descends: bool,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries at most.
    pub limit: u32,
    /// Entries before it.
    pub offset: u64,
    sort: Option<String>,
}

/// A page whose order is another parameter's.
pub struct Unsorted(pub Page);

impl IntoParams for Page {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = PageQuery::into_params(&place);
        parameters.extend(SortQuery::into_params(place));
        parameters
    }
}

impl IntoParams for Unsorted {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        PageQuery::into_params(place)
    }
}

impl Page {
    fn of(query: &PageQuery, default: u32, most: u32) -> Result<Self, Error> {
        let refused = |name: &str| {
            let text = format!("{name} must be at least 1");
            Err(Error::new(ErrorKind::ValidationError, text))
        };
        let limit = query.limit.or(query.page_size).unwrap_or(default);
        if limit == 0 || query.page_size == Some(0) {
            return refused("limit");
        }
        let limit = limit.min(most.max(1));
        let offset = match (query.offset, query.page) {
            (_, Some(0)) => return refused("page"),
            (None, Some(page)) => u64::from(page - 1) * u64::from(limit),
            (offset, _) => offset.unwrap_or(0).into(),
        };
        Ok(Self { limit, offset, sort: None })
    }

    /// Whether another order is wanted than the list's own.
    pub fn is_sorted(&self) -> bool {
        self.sort.is_some()
    }

    /// What a list of these entries is to be sorted by.
    ///
    /// # Errors
    /// They have no such field.
    pub fn terms<T: ToSchema>(&self) -> Result<Vec<Term>, Error> {
        let Some(sort) = &self.sort else { return Ok(Vec::new()) };
        let fields = fields_of::<T>();
        let refused = |text: String| {
            let names: Vec<_> = fields.iter().map(String::as_str).collect();
            Err(Error::new(ErrorKind::ValidationError, text)
                .with_hint(format!("sort takes {}; -field turns one around", names.join(", "))))
        };
        let terms: Vec<_> = sort.split(',').map(Term::of).collect();
        if terms.len() > MAX_TERMS {
            return refused(format!("sort has more than {MAX_TERMS} fields"));
        }
        match terms.iter().find(|term| !fields.contains(&term.field)) {
            Some(_) => refused("sort names a field that the entries do not have".into()),
            None => Ok(terms),
        }
    }

    /// This page of a list that is there as a whole.
    ///
    /// # Errors
    /// It cannot be sorted so.
    pub fn of_all<T: Serialize + ToSchema>(self, mut all: Vec<T>) -> Result<List<T>, Error> {
        let terms = self.terms::<T>()?;
        if !terms.is_empty() {
            all = sorted(all, &terms)?;
        }
        Ok(self.cut(all))
    }

    /// The same of what entries become; where there is no other order, only those of the page do.
    ///
    /// # Errors
    /// Those of [`Page::of_all`].
    pub fn of_mapped<V, T: Serialize + ToSchema>(
        self,
        all: Vec<V>,
        change: impl FnMut(V) -> T,
    ) -> Result<List<T>, Error> {
        match self.is_sorted() {
            true => self.of_all(all.into_iter().map(change).collect()),
            false => Ok(self.cut(all).map(change)),
        }
    }

    fn cut<T>(self, all: Vec<T>) -> List<T> {
        let total = all.len() as u64;
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let items = all.into_iter().skip(offset).take(self.limit as usize).collect();
        self.list(items, Some(total))
    }

    /// The envelope of this page; `items` may hold one more than fits, which tells that there are
    /// more.
    pub fn list<T>(self, mut items: Vec<T>, total: Option<u64>) -> List<T> {
        let limit = self.limit as usize;
        let is_cut = items.len() > limit;
        items.truncate(limit);
        let end = self.offset + items.len() as u64;
        let has_more = is_cut || total.is_some_and(|total| end < total);
        let Self { limit, offset, .. } = self;
        List { items, total, limit, offset, has_more, next_cursor: None }
    }
}

impl Term {
    fn of(text: &str) -> Self {
        let text = text.trim();
        let (field, descends) = match text.strip_prefix('-') {
            Some(field) => (field, true),
            None => (text.strip_prefix('+').unwrap_or(text), false),
        };
        Self { field: field.to_owned(), descends }
    }
}

/// Names of the fields that entries have.
fn fields_of<T: ToSchema>() -> BTreeSet<String> {
    let mut others = Vec::new();
    T::schemas(&mut others);
    let mut names = BTreeSet::new();
    let mut left = vec![T::schema()];
    while let Some(schema) = left.pop() {
        match schema {
            RefOr::T(Schema::Object(object)) => names.extend(object.properties.into_keys()),
            // What is flattened into it.
            RefOr::T(Schema::AllOf(all)) => left.extend(all.items),
            RefOr::T(_) => {}
            RefOr::Ref(place) => {
                let name = place.ref_location.rsplit('/').next().unwrap_or_default();
                let found = others.iter().position(|(other, _)| other == name);
                left.extend(found.map(|at| others.swap_remove(at).1));
            }
        }
    }
    names
}

fn sorted<T: Serialize>(all: Vec<T>, terms: &[Term]) -> Result<Vec<T>, Error> {
    let key = |entry: &T| -> Result<Vec<Value>, Error> {
        let mut value = serde_json::to_value(entry).map_err(Error::internal)?;
        let field = |term: &Term| value.get_mut(&term.field).map(Value::take).unwrap_or_default();
        Ok(terms.iter().map(field).collect())
    };
    let mut keyed = Vec::with_capacity(all.len());
    for entry in all {
        keyed.push((key(&entry)?, entry));
    }
    keyed.sort_by(|(a, _), (b, _)| {
        let mut orders = a.iter().zip(b).zip(terms).map(|((a, b), term)| {
            let order = compare(a, b);
            if term.descends { order.reverse() } else { order }
        });
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    Ok(keyed.into_iter().map(|(_, entry)| entry).collect())
}

/// The order of two values of a field: as PostgreSQL has it, nothing comes after everything.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => a.is_null().cmp(&b.is_null()),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => match (a.as_u64().zip(b.as_u64()), a.as_f64().zip(b.as_f64())) {
            (Some((a, b)), _) => a.cmp(&b),
            (_, Some((a, b))) => a.total_cmp(&b),
            (None, None) => a.to_string().cmp(&b.to_string()),
        },
    }
}

async fn page_of(
    parts: &mut Parts,
    door: &Arc<HttpDoor>,
    sort: Option<String>,
) -> Result<Page, ApiError> {
    let Params(query) = Params::<PageQuery>::from_request_parts(parts, door).await?;
    let config = door.config.now();
    let (default, most) = (config.api.default_page_size, config.api.max_page_size);
    Ok(Page { sort, ..Page::of(&query, default, most)? })
}

impl FromRequestParts<Arc<HttpDoor>> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        let Params(SortQuery { sort }) = Params::from_request_parts(parts, door).await?;
        page_of(parts, door, sort).await
    }
}

impl FromRequestParts<Arc<HttpDoor>> for Unsorted {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(page_of(parts, door, None).await?))
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The entries.
    pub items: Vec<T>,
    /// How many there are on all pages, if that is known.
    pub total: Option<u64>,
    /// The limit that was used.
    pub limit: u32,
    /// Entries before this page.
    pub offset: u64,
    /// Whether there are more after this page.
    pub has_more: bool,
    /// Where the next page begins, for lists that are read by cursor.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// The same page with other entries.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> List<U> {
        let Self { items, total, limit, offset, has_more, next_cursor } = self;
        let items = items.into_iter().map(change).collect();
        List { items, total, limit, offset, has_more, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let page = |limit, offset, page| {
            let query = PageQuery { limit, page_size: None, offset, page };
            Page::of(&query, 50, 1000).map(|page| (page.limit, page.offset)).ok()
        };
        assert_eq!(page(None, None, None), Some((50, 0)));
        assert_eq!(page(Some(5000), Some(7), None), Some((1000, 7)));
        assert_eq!(page(Some(10), None, Some(3)), Some((10, 20)));
        assert_eq!(page(Some(10), None, Some(u32::MAX)), Some((10, 42_949_672_940)));
        for refused in [page(Some(0), None, None), page(None, None, Some(0))] {
            assert_eq!(refused, None);
        }
        assert_eq!(page(None, Some(1), Some(5)), Some((50, 1)));
    }

    #[test]
    fn lists() {
        let page = || Page { limit: 2, offset: 1, sort: None };
        let list = page().of_all(vec![1, 2, 3, 4]).unwrap();
        assert_eq!((list.items, list.total, list.has_more), (vec![2, 3], Some(4), true));
        let list = page().of_mapped(vec![1, 2, 3], |n| n * 2).unwrap();
        assert_eq!((list.items, list.has_more), (vec![4, 6], false));
        let list = page().list(vec![2, 3, 4], None);
        assert_eq!((list.items, list.total, list.has_more), (vec![2, 3], None, true));
        let far = Page { limit: 2, offset: u64::MAX - 9, sort: None };
        assert!(far.of_all(vec![1]).unwrap().items.is_empty());
    }

    #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
    struct Inner {
        name: &'static str,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
    struct Entry {
        #[serde(flatten)]
        inner: Inner,
        size: Option<i64>,
    }

    #[test]
    fn lists_are_sorted() {
        let entry = |name, size| Entry { inner: Inner { name }, size };
        let all =
            vec![entry("b", Some(10)), entry("a", None), entry("c", Some(-9)), entry("d", None)];
        let names = |sort: &str| {
            let page = Page { limit: 3, offset: 0, sort: Some(sort.to_owned()) };
            let list = page.of_all(all.clone()).map_err(|error| error.message().to_owned())?;
            assert!((list.total, list.has_more) == (Some(4), true));
            Ok::<_, String>(list.items.iter().map(|entry| entry.inner.name).collect::<String>())
        };
        assert_eq!(names("name").as_deref(), Ok("abc"));
        assert_eq!(names("-name").as_deref(), Ok("dcb"));
        assert_eq!(names("size,-name").as_deref(), Ok("cbd"));
        assert_eq!(names("-size, name").as_deref(), Ok("adb"));
        for refused in ["", "colour", "name,", "-", "name desc", &["name"; 9].join(",")] {
            assert!(names(refused).is_err(), "{refused}");
        }
    }
}

//! Pages of lists: `limit`, `offset`, `page`, and the envelope that lists come in.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
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

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries at most.
    pub limit: u32,
    /// Entries before it.
    pub offset: u64,
}

impl IntoParams for Page {
    fn into_params(
        parameter_in_provider: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
    ) -> Vec<utoipa::openapi::path::Parameter> {
        PageQuery::into_params(parameter_in_provider)
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
        Ok(Self { limit, offset })
    }

    /// This page of a list that is there as a whole.
    pub fn of_all<T>(self, all: Vec<T>) -> List<T> {
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
        let Self { limit, offset } = self;
        List { items, total, limit, offset, has_more, next_cursor: None }
    }
}

impl FromRequestParts<Arc<HttpDoor>> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        let Params(query) = Params::<PageQuery>::from_request_parts(parts, door).await?;
        let config = door.config.now();
        let (default, most) = (config.api.default_page_size, config.api.max_page_size);
        Ok(Self::of(&query, default, most)?)
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
        let page = Page { limit: 2, offset: 1 };
        let list = page.of_all(vec!['a', 'b', 'c', 'd']);
        assert_eq!((list.items, list.total, list.has_more), (vec!['b', 'c'], Some(4), true));
        let list = page.of_all(vec!['a', 'b', 'c']);
        assert_eq!((list.items, list.has_more), (vec!['b', 'c'], false));
        let list = page.list(vec!['b', 'c', 'd'], None);
        assert_eq!((list.items, list.total, list.has_more), (vec!['b', 'c'], None, true));
        assert!(Page { limit: 2, offset: u64::MAX - 9 }.of_all(vec!['a']).items.is_empty());
    }
}

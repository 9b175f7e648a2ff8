//! One route: its handler, and what `/openapi.json` says of it.

use axum::routing::MethodRouter;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Shared;

/// What stands around a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The guard, and the usual time.
    Usual,
    /// The guard, and the time that storage may take.
    Long,
    /// No guard.
    Open,
}

/// One method of one path.
pub struct Route {
    /// As axum and OpenAPI write it.
    pub path: &'static str,
    /// The handler, for its method alone.
    pub handler: MethodRouter<Shared>,
    /// What stands around it.
    pub limit: Limit,
    pub(super) method: HttpMethod,
    pub(super) summary: &'static str,
    pub(super) query: Vec<(&'static str, &'static str)>,
    pub(super) takes: Option<String>,
    pub(super) answers: Option<String>,
    pub(super) also: Vec<&'static str>,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
}

impl Route {
    fn new(method: HttpMethod, path: &'static str, handler: MethodRouter<Shared>) -> Self {
        Self {
            path,
            handler,
            limit: Limit::Usual,
            method,
            summary: "",
            query: Vec::new(),
            takes: None,
            answers: None,
            also: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// `GET`; the handler is one of [`axum::routing::get`].
    pub fn get(path: &'static str, handler: MethodRouter<Shared>) -> Self {
        Self::new(HttpMethod::Get, path, handler)
    }

    /// `POST`; the handler is one of [`axum::routing::post`].
    pub fn post(path: &'static str, handler: MethodRouter<Shared>) -> Self {
        Self::new(HttpMethod::Post, path, handler)
    }

    /// `DELETE`; the handler is one of [`axum::routing::delete`].
    pub fn delete(path: &'static str, handler: MethodRouter<Shared>) -> Self {
        Self::new(HttpMethod::Delete, path, handler)
    }

    /// What it does.
    pub fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    /// A parameter of the query, and what it means.
    pub fn query(mut self, parameter: (&'static str, &'static str)) -> Self {
        self.query.push(parameter);
        self
    }

    /// Its body; all of it may be left out.
    pub fn takes<T: ToSchema>(mut self) -> Self {
        self.takes = Some(self.schema::<T>());
        self
    }

    /// Its answer.
    pub fn answers<T: ToSchema>(mut self) -> Self {
        self.answers = Some(self.schema::<T>());
        self
    }

    /// Another type that it answers in.
    pub fn also(mut self, media: &'static str) -> Self {
        self.also.push(media);
        self
    }

    /// It answers with a stream of events.
    pub fn streams(self) -> Self {
        self.also("text/event-stream")
    }

    /// No credential is asked for.
    pub fn open(self) -> Self {
        Self { limit: Limit::Open, ..self }
    }

    /// It may have to wait for storage.
    pub fn long(self) -> Self {
        Self { limit: Limit::Long, ..self }
    }

    fn schema<T: ToSchema>(&mut self) -> String {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), <T as PartialSchema>::schema()));
        T::schemas(&mut self.schemas);
        name
    }
}

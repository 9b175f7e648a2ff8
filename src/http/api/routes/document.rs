//! `/openapi.json`, of the list of routes.

use std::collections::BTreeSet;

use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref, Required,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::route::{Limit, Route};
use crate::http::api::problem::ProblemView;
use crate::session::ID_BYTES;

/// The document.
pub fn of(routes: &[Route]) -> OpenApi {
    let mut components = ComponentsBuilder::new()
        .schema(ProblemView::name(), <ProblemView as PartialSchema>::schema())
        .security_scheme(
            "bearer",
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some(
                        "API_TOKEN, or the access token of a signed-in user of the Supabase project, for that user's \
                         own sessions",
                    ))
                    .build(),
            ),
        )
        .security_scheme(
            "apiKey",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("X-Api-Key", "API_TOKEN"))),
        );
    let mut paths = PathsBuilder::new();
    let mut known = BTreeSet::new();
    for route in routes {
        for (name, schema) in &route.schemas {
            if known.insert(name.clone()) {
                components = components.schema(name.clone(), schema.clone());
            }
        }
        paths = paths.path(route.path, PathItem::new(route.method.clone(), operation(route)));
    }
    let info = InfoBuilder::new()
        .title("session-sidecar")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

/// What a parameter may be.
fn values(name: &str) -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String);
    match name {
        // The rule of `check_id`.
        "user" | "session" | "sessionId" => text
            .pattern(Some("^[A-Za-z0-9_@+=-][A-Za-z0-9_.@+=-]*$"))
            .min_length(Some(1))
            .max_length(Some(ID_BYTES))
            .build(),
        "format" => text.enum_values(Some(["png", "svg", "json", "text", "raw"])).build(),
        "logout" | "purge" => ObjectBuilder::new().schema_type(Type::Boolean).build(),
        _ => text.build(),
    }
}

fn operation(route: &Route) -> OperationBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    let parameter = |name: &str, place, what: &str, required| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .description(Some(what))
            .schema(Some(values(name)))
            .build()
    };
    let schema = |name: &String| ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).build();
    let mut operation = OperationBuilder::new()
        .summary(Some(route.summary))
        .tag(if route.path.starts_with("/api/whatsapp") { "whatsapp" } else { "sessions" });
    for (name, what) in [("user", "The user"), ("session", "The session")] {
        if route.path.contains(&format!("{{{name}}}")) {
            operation = operation.parameter(parameter(name, ParameterIn::Path, what, Required::True));
        }
    }
    for (name, what) in &route.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query, what, Required::False));
    }
    if let Some(name) = &route.takes {
        let body = RequestBodyBuilder::new()
            .content("application/json", schema(name))
            .required(Some(Required::False));
        operation = operation.request_body(Some(body.build()));
    }
    let mut answer = ResponseBuilder::new().description(route.summary);
    if let Some(name) = &route.answers {
        answer = answer.content("application/json", schema(name));
    }
    for media in &route.also {
        answer = answer.content(*media, ContentBuilder::new().schema(Some(text())).build());
    }
    let problem = ResponseBuilder::new()
        .description("What went wrong: `code` is a stable word")
        .content("application/json", schema(&ProblemView::name().into_owned()))
        .build();
    operation = operation.response("200", answer.build()).response("default", problem);
    if route.limit == Limit::Open {
        return operation;
    }
    let none: [&str; 0] = [];
    operation
        .security(SecurityRequirement::new("bearer", none))
        .security(SecurityRequirement::new("apiKey", none))
}

//! How the routes of a noun stand in the OpenAPI document.

use leeward_common::api::{problem::Problem, v1::Removed};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Content, Ref, RefOr, Required, Response, Schema, SecurityRequirement,
        path::{
            HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
            PathItemBuilder, Paths, PathsBuilder,
        },
        request_body::RequestBodyBuilder,
    },
};

use super::Noun;

type Schemas = Vec<(String, RefOr<Schema>)>;

/// The schemas and the path of a noun.
pub(super) fn of<N: Noun>() -> (Schemas, Paths) {
    let mut schemas = Schemas::new();
    add::<N::Spec>(&mut schemas);
    add::<N::Answer>(&mut schemas);
    add::<Removed>(&mut schemas);
    add::<Problem>(&mut schemas);
    let item = PathItemBuilder::new()
        .operation(HttpMethod::Get, read::<N>())
        .operation(HttpMethod::Put, put::<N>())
        .operation(HttpMethod::Delete, remove::<N>());
    (
        schemas,
        PathsBuilder::new().path(N::ROUTE, item.build()).build(),
    )
}

fn add<T: ToSchema>(schemas: &mut Schemas) {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), T::schema()));
}

fn read<N: Noun>() -> OperationBuilder {
    let name = N::NAME;
    operation::<N>(name, &format!("One {name}. Its ETag is its version."))
        .response("200", answer::<N::Answer>(&format!("The {name}")))
        .response("304", Response::new("It is still the version of this ETag"))
        .response(
            "404",
            problem(&format!("There is no such {name}; lists near names")),
        )
}

fn put<N: Noun>() -> OperationBuilder {
    let name = N::NAME;
    let body = RequestBodyBuilder::new()
        .content("application/json", content::<N::Spec>())
        .required(Some(Required::True));
    let summary = format!(
        "Defines {} {name}, or replaces it. It is durable and in force when this answers.",
        article(name)
    );
    operation::<N>(&format!("put_{name}"), &summary)
        .parameter(header(
            "if-match",
            "The ETag of the version that is replaced",
        ))
        .parameter(header("if-none-match", "`*`: only if there is none yet"))
        .request_body(Some(body.build()))
        .response("200", answer::<N::Answer>("It is replaced"))
        .response("201", answer::<N::Answer>("It is defined"))
        .response(
            "400",
            problem("The body, a header or the id cannot be read; says where"),
        )
        .response("401", problem("No token, or one that nobody knows"))
        .response("403", problem("The token may not do this"))
        .response(
            "404",
            problem("It names a region or a service that does not exist; lists near names"),
        )
        .response(
            "412",
            problem("It was changed meanwhile, or is there already"),
        )
        .response(
            "422",
            problem("It makes no sense; says which member and what to write"),
        )
        .response("503", problem("It cannot be stored now"))
        .security(bearer())
}

fn remove<N: Noun>() -> OperationBuilder {
    let name = N::NAME;
    let why = ParameterBuilder::new()
        .name("why")
        .parameter_in(ParameterIn::Query)
        .description(Some("Why, for the audit log."))
        .required(Required::False)
        .schema(Some(String::schema()));
    let summary = format!("Removes {} {name}.", article(name));
    operation::<N>(&format!("delete_{name}"), &summary)
        .parameter(header(
            "if-match",
            "The ETag of the version that is removed",
        ))
        .parameter(why)
        .response("200", answer::<Removed>("It is removed"))
        .response("400", problem("The query or a header cannot be read"))
        .response("401", problem("No token, or one that nobody knows"))
        .response("403", problem("The token may not do this"))
        .response("404", problem("There is none of this id; lists near names"))
        .response("412", problem("It was changed meanwhile"))
        .response("503", problem("It cannot be stored now"))
        .security(bearer())
}

fn operation<N: Noun>(id: &str, summary: &str) -> OperationBuilder {
    let parameters = N::PARAMETER.map(|parameter| {
        ParameterBuilder::new()
            .name(parameter)
            .parameter_in(ParameterIn::Path)
            .description(Some(format!("The {}", N::NAME)))
            .required(Required::True)
            .schema(Some(String::schema()))
            .build()
    });
    OperationBuilder::new()
        .tag(N::TAG)
        .operation_id(Some(id.replace(' ', "_")))
        .summary(Some(summary))
        .parameters(parameters.map(|own| vec![own]))
}

fn header(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .description(Some(description))
        .required(Required::False)
        .schema(Some(String::schema()))
        .build()
}

fn bearer() -> SecurityRequirement {
    SecurityRequirement::new("bearer", [""; 0])
}

fn content<T: ToSchema>() -> Content {
    Content::new(Some(Ref::from_schema_name(T::name())))
}

fn answer<T: ToSchema>(description: &str) -> Response {
    Response::builder()
        .description(description)
        .content("application/json", content::<T>())
        .build()
}

fn problem(description: &str) -> Response {
    Response::builder()
        .description(description)
        .content("application/problem+json", content::<Problem>())
        .build()
}

fn article(name: &str) -> &'static str {
    match name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    }
}

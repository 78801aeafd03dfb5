//! `#[plugin]`: see `cardan-heliosproxy-sdk`.

use proc_macro::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// The hooks, by the name of the function and of the export.
const HOOKS: [&str; 12] = [
    "metadata",
    "on_load",
    "on_unload",
    "pre_query",
    "post_query",
    "authenticate",
    "authorize",
    "cache_key",
    "should_cache",
    "route",
    "rewrite",
    "metrics",
];

/// On a module: exports its functions that have a hook's name. `#[no_mangle]` in it has no effect, since it would
/// export Rust's own calling convention under the same names.
#[proc_macro_attribute]
pub fn plugin(_attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut name: Option<Ident> = None;
    let mut hooks = Vec::new();
    let mut expects_name = false;
    let mut out = TokenStream::new();
    for token in item {
        let token = match token {
            TokenTree::Ident(ident) => {
                if expects_name {
                    name = Some(ident.clone());
                }
                expects_name = ident.to_string() == "mod";
                TokenTree::Ident(ident)
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let body = without_no_mangle(group.stream());
                hooks = functions(body.clone());
                let mut with = Group::new(Delimiter::Brace, body);
                with.set_span(group.span());
                TokenTree::Group(with)
            }
            other => other,
        };
        out.extend([token]);
    }
    let Some(name) = name else { return error("`#[plugin]` stands above a module") };
    hooks.retain(|function| HOOKS.contains(&function.as_str()));
    if hooks.is_empty() {
        return error("no function of this module has the name of a hook");
    }
    let exports: String = hooks
        .iter()
        .map(|hook| format!("heliosproxy_plugin_sdk::export_hook!({hook}, {name}::{hook});\n"))
        .collect();
    let exports = format!("const _: () = {{ heliosproxy_plugin_sdk::export_memory!(); {exports} }};");
    match exports.parse::<TokenStream>() {
        Ok(exports) => out.extend(exports),
        Err(_) => return error("a hook's name cannot be written"),
    }
    out
}

fn error(text: &str) -> TokenStream {
    format!("compile_error!({text:?});").parse().unwrap_or_default()
}

/// Leaves `#[no_mangle]` out.
fn without_no_mangle(body: TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = body.into_iter().collect();
    let is_no_mangle = |at: usize| match (&tokens[at], tokens.get(at + 1)) {
        (TokenTree::Punct(hash), Some(TokenTree::Group(group))) => {
            hash.as_char() == '#'
                && group.delimiter() == Delimiter::Bracket
                && group.stream().to_string() == "no_mangle"
        }
        _ => false,
    };
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_no_mangle(at) {
            at += 2;
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept.into_iter().collect()
}

/// Names of the functions right inside of the module.
fn functions(body: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_function = false;
    for token in body {
        if let TokenTree::Ident(ident) = &token {
            if is_function {
                names.push(ident.to_string());
            }
            is_function = ident.to_string() == "fn";
        } else {
            is_function = false;
        }
    }
    names
}

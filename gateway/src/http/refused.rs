//! The answer to a refused Host or Origin: JSON for programs, and for a person a page that says
//! what to do. The page needs nothing else of ours: its files would be refused as it was.

use super::error::ApiError;
use super::pages;
use crate::access::origins::{Asked, Refusal};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const STYLE: &str = "body{font:1rem/1.6 system-ui,sans-serif;max-width:36rem;margin:12vh auto;padding:0 1.5rem;\
    color:#1c1c1e;background:#fff}code{overflow-wrap:anywhere;background:#8883;padding:.1em .3em;border-radius:.3em}\
    @media(prefers-color-scheme:dark){body{color:#eee;background:#161618}}";

/// Answers a refused request.
pub(super) fn answer(refusal: &Refusal, asked: &Asked<'_>, wants_html: bool) -> Response {
    let status = match refusal {
        Refusal::BadHost => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    let host = asked
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    if wants_html {
        let texts = Language::of(asked.headers).texts();
        return page(status, &texts(refusal, host));
    }
    let Words { title, sentences } = english(refusal, host);
    let text = format!("{title}. {}", sentences.join(" ")).replace('`', "\"");
    let mut error = ApiError::new(status, refusal.code(), text);
    if let Some((key, value)) = refusal.remedy() {
        error = error.with("key", key.name()).with("value", value);
    }
    if let Some(origin) = refusal.origin() {
        error = error.with("origin", Value::from(origin));
    }
    error.into_response()
}

/// What is said: a heading and sentences. Text between backticks is shown as code.
struct Words {
    title: &'static str,
    sentences: Vec<String>,
}

fn page(status: StatusCode, words: &Words) -> Response {
    let title = pages::attribute(words.title);
    let text: String = words
        .sentences
        .iter()
        .map(|sentence| format!("<p>{}</p>", with_code(&pages::attribute(sentence))))
        .collect();
    let html = format!(
        "<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>ComfyUI Sentinel</title><style>{STYLE}</style><h1>{title}</h1>{text}"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    pages::protect(headers);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Language"));
    response
}

/// Escaped text with what stands between backticks as code.
fn with_code(text: &str) -> String {
    text.split('`')
        .enumerate()
        .map(|(index, part)| match index % 2 {
            0 => part.to_owned(),
            _ => format!("<code>{part}</code>"),
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    English,
    German,
    Chinese,
}

impl Language {
    /// The first of ours that the browser names.
    fn of(headers: &HeaderMap) -> Self {
        headers
            .get(ACCEPT_LANGUAGE)
            .and_then(|languages| languages.to_str().ok())
            .unwrap_or_default()
            .split(',')
            .find_map(|language| match language.trim().get(..2)? {
                "en" => Some(Self::English),
                "de" => Some(Self::German),
                "zh" => Some(Self::Chinese),
                _ => None,
            })
            .unwrap_or(Self::English)
    }

    fn texts(self) -> fn(&Refusal, &str) -> Words {
        match self {
            Self::English => english,
            Self::German => german,
            Self::Chinese => chinese,
        }
    }
}

/// The text between backticks cannot end early.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|character| *character != '`' && !character.is_control())
        .take(200)
        .collect()
}

fn english(refusal: &Refusal, host: &str) -> Words {
    let host = plain(host);
    match refusal {
        Refusal::BadHost => Words {
            title: "The address is not valid",
            sentences: vec!["The request does not say by one valid host name whom it asks for.".into()],
        },
        Refusal::ForeignHost { name } => Words {
            title: "Sentinel does not know this name",
            sentences: vec![
                format!("You asked for `{}`. Sentinel answers only to names that it knows, so that no foreign page can pass itself off as it.", plain(name)),
                format!("If this is your machine: in Sentinel's settings, add `{}` to `allowed_hosts`. The window offers it under Sharing and under Activity.", plain(name)),
                "If somebody else runs it, ask them to do so, or use the address with numbers.".into(),
            ],
        },
        Refusal::UntrustedProxy { proxy } => Words {
            title: "Sentinel does not know the proxy in between",
            sentences: vec![
                format!("Your request came through another program, a reverse proxy at `{proxy}`, and Sentinel does not believe what it says about you."),
                format!("If this is your proxy: in Sentinel's settings, add `{proxy}` to `trusted_proxies`. The window offers it under Sharing and under Activity."),
                "If somebody else runs it, ask them to do so.".into(),
            ],
        },
        Refusal::ChangedOrigin { origin } => Words {
            title: "Something in your browser changes the Origin",
            sentences: vec![
                format!("Your browser says that this request comes from `{}`, which is not the page that you see. As a rule a browser extension does that.", plain(origin)),
                "Open Sentinel in a private window, or switch such extensions off for this address.".into(),
            ],
        },
        Refusal::ForeignOrigin { origin } => Words {
            title: "This request came from another page",
            sentences: vec![
                match origin {
                    Some(origin) => format!("It came from `{}`, and Sentinel takes requests of its own page at `{host}` alone.", plain(origin)),
                    None => format!("Sentinel takes requests of its own page at `{host}` alone."),
                },
                "Open Sentinel's own address.".into(),
                "Behind a reverse proxy: it has to pass the `Host` header on, and its address belongs into `trusted_proxies`.".into(),
            ],
        },
    }
}

fn german(refusal: &Refusal, host: &str) -> Words {
    let host = plain(host);
    match refusal {
        Refusal::BadHost => Words {
            title: "Die Adresse ist ungültig",
            sentences: vec!["Die Anfrage nennt nicht genau einen gültigen Hostnamen.".into()],
        },
        Refusal::ForeignHost { name } => Words {
            title: "Sentinel kennt diesen Namen nicht",
            sentences: vec![
                format!("Aufgerufen wurde `{}`. Sentinel antwortet nur unter Namen, die es kennt, damit sich keine fremde Seite für es ausgeben kann.", plain(name)),
                format!("Wenn dies Ihr Rechner ist: Tragen Sie `{}` in den Einstellungen von Sentinel unter `allowed_hosts` ein. Das Fenster bietet es unter Freigabe und unter Aktivität an.", plain(name)),
                "Betreibt jemand anderes Sentinel, bitten Sie diese Person darum oder verwenden Sie die Adresse aus Zahlen.".into(),
            ],
        },
        Refusal::UntrustedProxy { proxy } => Words {
            title: "Sentinel kennt den Proxy dazwischen nicht",
            sentences: vec![
                format!("Ihre Anfrage kam über ein anderes Programm, einen Reverse-Proxy unter `{proxy}`, und Sentinel glaubt nicht, was er über Sie sagt."),
                format!("Wenn dies Ihr Proxy ist: Tragen Sie `{proxy}` in den Einstellungen von Sentinel unter `trusted_proxies` ein. Das Fenster bietet es unter Freigabe und unter Aktivität an."),
                "Betreibt jemand anderes Sentinel, bitten Sie diese Person darum.".into(),
            ],
        },
        Refusal::ChangedOrigin { origin } => Words {
            title: "Etwas in Ihrem Browser verändert den Origin",
            sentences: vec![
                format!("Ihr Browser sagt, diese Anfrage komme von `{}`; das ist nicht die Seite, die Sie sehen. In der Regel ist das eine Browser-Erweiterung.", plain(origin)),
                "Öffnen Sie Sentinel in einem privaten Fenster oder schalten Sie solche Erweiterungen für diese Adresse aus.".into(),
            ],
        },
        Refusal::ForeignOrigin { origin } => Words {
            title: "Diese Anfrage kam von einer anderen Seite",
            sentences: vec![
                match origin {
                    Some(origin) => format!("Sie kam von `{}`; Sentinel nimmt nur Anfragen der eigenen Seite unter `{host}` an.", plain(origin)),
                    None => format!("Sentinel nimmt nur Anfragen der eigenen Seite unter `{host}` an."),
                },
                "Öffnen Sie die Adresse von Sentinel selbst.".into(),
                "Hinter einem Reverse-Proxy: Er muss den Header `Host` weitergeben, und seine Adresse gehört in `trusted_proxies`.".into(),
            ],
        },
    }
}

fn chinese(refusal: &Refusal, host: &str) -> Words {
    let host = plain(host);
    match refusal {
        Refusal::BadHost => Words {
            title: "地址无效",
            sentences: vec!["请求没有用一个有效的主机名说明要访问谁。".into()],
        },
        Refusal::ForeignHost { name } => Words {
            title: "Sentinel 不认识这个名称",
            sentences: vec![
                format!(
                    "您访问的是 `{}`。Sentinel 只响应它认识的名称，以免别的网页冒充它。",
                    plain(name)
                ),
                format!(
                    "如果这是您的电脑：请在 Sentinel 的设置中把 `{}` 加入 `allowed_hosts`。窗口的“共享”和“活动”页面会提供这一选项。",
                    plain(name)
                ),
                "如果由他人管理，请让对方添加，或改用数字地址。".into(),
            ],
        },
        Refusal::UntrustedProxy { proxy } => Words {
            title: "Sentinel 不认识中间的代理",
            sentences: vec![
                format!(
                    "您的请求经过了另一个程序，即位于 `{proxy}` 的反向代理，而 Sentinel 不相信它对您的描述。"
                ),
                format!(
                    "如果这是您的代理：请在 Sentinel 的设置中把 `{proxy}` 加入 `trusted_proxies`。窗口的“共享”和“活动”页面会提供这一选项。"
                ),
                "如果由他人管理，请让对方添加。".into(),
            ],
        },
        Refusal::ChangedOrigin { origin } => Words {
            title: "浏览器中有程序修改了 Origin",
            sentences: vec![
                format!(
                    "您的浏览器声称这个请求来自 `{}`，但那不是您看到的页面。通常是浏览器扩展造成的。",
                    plain(origin)
                ),
                "请在隐私窗口中打开 Sentinel，或对此地址停用这类扩展。".into(),
            ],
        },
        Refusal::ForeignOrigin { origin } => Words {
            title: "这个请求来自另一个页面",
            sentences: vec![
                match origin {
                    Some(origin) => format!(
                        "它来自 `{}`，而 Sentinel 只接受自己位于 `{host}` 的页面的请求。",
                        plain(origin)
                    ),
                    None => format!("Sentinel 只接受自己位于 `{host}` 的页面的请求。"),
                },
                "请打开 Sentinel 自己的地址。".into(),
                "在反向代理之后：它必须传递 `Host` 标头，并且它的地址应加入 `trusted_proxies`。"
                    .into(),
            ],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_browsers() {
        for (languages, expected) in [
            ("", Language::English),
            ("fr-FR,fr;q=0.9", Language::English),
            ("de-DE,de;q=0.9,en;q=0.8", Language::German),
            ("fr, zh-CN;q=0.8, en", Language::Chinese),
            ("é", Language::English),
        ] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(languages) {
                headers.insert(ACCEPT_LANGUAGE, value);
            }
            assert_eq!(Language::of(&headers), expected, "{languages}");
        }
    }

    #[test]
    fn nothing_of_a_request_becomes_part_of_the_page() {
        let refusal = Refusal::ForeignOrigin {
            origin: Some("http://`<script>alert(1)</script>".to_owned()),
        };
        for texts in [english, german, chinese] {
            let words = texts(&refusal, "<b>`host");
            for sentence in &words.sentences {
                let html = with_code(&pages::attribute(sentence));
                assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
                assert_eq!(
                    html.matches("<code>").count(),
                    html.matches("</code>").count()
                );
            }
        }
    }
}

//! Who asks the store: which kind of credentials the environment names, and what is said when they are not to be had.
//!
//! The object store's crate has all kinds but AWS's file, which is read here for each request, so that what rotates it
//! needs to tell nobody.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::{env, fs};

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, AwsCredentialProvider};

use super::bucket::said_by;

const KEY: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
const SESSION: &str = "AWS_SESSION_TOKEN";
const IDENTITY: [&str; 2] = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"];
const FILE: &str = "AWS_SHARED_CREDENTIALS_FILE";
const PROFILE: &str = "AWS_PROFILE";
const TASK: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const AGENT: [&str; 2] =
    ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];

/// A kind of credentials. The first of them that the environment names is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialKind {
    Key,
    WebIdentity,
    File,
    Agent,
    Machine,
}

impl CredentialKind {
    /// The first kind that is named.
    ///
    /// # Errors
    /// What is missing of one that is named by half.
    fn named(is_set: impl Fn(&str) -> bool, has_file: bool) -> Result<Self, String> {
        let both = |names: [&str; 2]| match names.map(&is_set) {
            [true, false] => Err(lacking(names[0], names[1])),
            [false, true] => Err(lacking(names[1], names[0])),
            [is_named, _] => Ok(is_named),
        };
        if both(KEY)? {
            return Ok(Self::Key);
        }
        if is_set(SESSION) {
            return Err(lacking(SESSION, KEY[0]));
        }
        if both(IDENTITY)? {
            return Ok(Self::WebIdentity);
        }
        if has_file {
            return Ok(Self::File);
        }
        if is_set(PROFILE) {
            return Err(lacking(PROFILE, FILE));
        }
        Ok(if is_set(TASK) || both(AGENT)? { Self::Agent } else { Self::Machine })
    }

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Key => "the key in AWS_ACCESS_KEY_ID",
            Self::WebIdentity => "the web identity in AWS_WEB_IDENTITY_TOKEN_FILE",
            Self::File => "AWS's file of credentials",
            Self::Agent => "the container's agent in AWS_CONTAINER_CREDENTIALS_*",
            Self::Machine => "the machine's role",
        }
    }

    fn failure(self, error: &object_store::Error) -> String {
        match self {
            Self::Machine => format!(
                "there are no credentials: none of {}, {}, {FILE}, ~/.aws/credentials, {TASK} and {} is there, and \
                 {} gives none ({}); set {} and {}, or one of the others",
                KEY[0],
                IDENTITY[0],
                AGENT[0],
                self.name(),
                said_by("its metadata service", error),
                KEY[0],
                KEY[1],
            ),
            _ => format!("no credentials by {}: {}", self.name(), said_by("its endpoint", error)),
        }
    }
}

fn lacking(set: &str, lacks: &str) -> String {
    format!("{set} is set, and {lacks} is not: set both of them, or neither")
}

/// What a variable holds; one that is set to nothing is as good as none.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A builder with what the environment says.
pub(super) fn builder() -> AmazonS3Builder {
    let set = env::vars_os().filter_map(|(name, value)| {
        let key = name.into_string().ok().filter(|name| name.starts_with("AWS_"))?;
        let value = value.into_string().ok().filter(|value| !value.is_empty())?;
        Some((key.to_ascii_lowercase().parse().ok()?, value))
    });
    set.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}

/// Builds a client that asks with the credentials that the environment names.
///
/// # Errors
/// What is wrong with the settings.
pub(super) fn build(builder: AmazonS3Builder) -> Result<(AmazonS3, CredentialKind), String> {
    let file = FileCredentials::of_environment();
    let kind = CredentialKind::named(|name| variable(name).is_some(), file.is_some())?;
    let unusable = |error| said_by("the store", &error);
    let builder = match (kind, file) {
        (CredentialKind::File, Some(file)) => {
            builder.with_credentials(Arc::new(NamedCredentials::OfFile(file)))
        }
        (CredentialKind::Key, _) => builder,
        _ => {
            let client = builder.clone().build().map_err(unusable)?; // for its credentials alone
            let provider = client.credentials().clone();
            builder.with_credentials(Arc::new(NamedCredentials::OfCrate(kind, provider)))
        }
    };
    Ok((builder.build().map_err(unusable)?, kind))
}

/// Credentials whose failures say of which kind they are.
#[derive(Debug)]
enum NamedCredentials {
    OfFile(FileCredentials),
    OfCrate(CredentialKind, AwsCredentialProvider),
}

impl CredentialProvider for NamedCredentials {
    type Credential = AwsCredential;

    // What `async_trait` makes of an async function.
    fn get_credential<'s, 'f>(
        &'s self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let failed =
            |reason: String| object_store::Error::Generic { store: "S3", source: reason.into() };
        Box::pin(async move {
            match self {
                Self::OfFile(file) => file.read().map(Arc::new).map_err(failed),
                Self::OfCrate(kind, provider) => {
                    let found = provider.get_credential().await;
                    found.map_err(|error| failed(kind.failure(&error)))
                }
            }
        })
    }
}

/// The credentials of a profile in a file.
#[derive(Debug)]
struct FileCredentials {
    path: PathBuf,
    profile: String,
}

impl FileCredentials {
    /// The file that the environment names, or the one in the home directory if there is one.
    fn of_environment() -> Option<Self> {
        let named = variable(FILE).map(PathBuf::from);
        let of_home = || {
            let path = PathBuf::from(env::var_os("HOME")?).join(".aws/credentials");
            path.exists().then_some(path)
        };
        let profile = variable(PROFILE).unwrap_or_else(|| "default".to_owned());
        named.or_else(of_home).map(|path| Self { path, profile })
    }

    fn read(&self) -> Result<AwsCredential, String> {
        let text = fs::read_to_string(&self.path)
            .map_err(|error| format!("{} cannot be read: {error}", self.path.display()))?;
        parse(&text, &self.profile, &self.path)
    }
}

fn parse(text: &str, profile: &str, path: &Path) -> Result<AwsCredential, String> {
    let (mut is_in, mut found) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_in = name.trim() == profile;
            found |= is_in;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_in) {
            let value = Some(value.trim().to_owned());
            match key.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(key_id), Some(secret_key)) => Ok(AwsCredential { key_id, secret_key, token }),
        _ if found => Err(format!(
            "{}: profile {profile} lacks aws_access_key_id or aws_secret_access_key",
            path.display()
        )),
        _ => Err(format!("{} has no profile {profile}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_kind_that_is_named_whole_is_used() {
        use CredentialKind::{Agent, File, Key, Machine, WebIdentity};

        let named = |set: &[&str], has_file: bool| {
            CredentialKind::named(|name| set.contains(&name), has_file)
        };
        assert_eq!(named(&[], false), Ok(Machine));
        assert_eq!(named(&[TASK], false), Ok(Agent));
        assert_eq!(named(&AGENT, false), Ok(Agent));
        assert_eq!(named(&[AGENT[0]], true), Ok(File), "what comes later does not matter");
        assert_eq!(named(&IDENTITY, true), Ok(WebIdentity));
        assert_eq!(named(&[KEY[0], KEY[1], SESSION, IDENTITY[1]], true), Ok(Key));
        for (set, lacks) in [
            (KEY[0], KEY[1]),
            (KEY[1], KEY[0]),
            (SESSION, KEY[0]),
            (IDENTITY[0], IDENTITY[1]),
            (IDENTITY[1], IDENTITY[0]),
            (PROFILE, FILE),
            (AGENT[0], AGENT[1]),
            (AGENT[1], AGENT[0]),
        ] {
            let error = named(&[set], false).expect_err("named by half");
            assert!(error.starts_with(&format!("{set} is set, and {lacks} is not")), "{error}");
        }
    }

    #[test]
    fn a_profile_is_found_in_the_file() {
        let text = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=S=1\n\n\
                    [other]\naws_access_key_id=B\naws_secret_access_key=T\naws_session_token = U\n[bare]\n";
        let read = |profile: &str| parse(text, profile, Path::new("f"));
        let default = read("default").expect("there");
        assert_eq!(
            (default.key_id, default.secret_key, default.token),
            ("A".into(), "S=1".into(), None)
        );
        assert_eq!(read("other").expect("there").token.as_deref(), Some("U"));
        assert_eq!(read("none").expect_err("absent"), "f has no profile none");
        assert!(read("bare").expect_err("empty").contains("lacks aws_access_key_id"));
    }
}

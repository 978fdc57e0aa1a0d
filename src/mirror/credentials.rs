//! AWS's file of credentials, which the object store's crate does not read. It is read for each request, so that
//! what rotates it needs to tell nobody.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::{env, fs};

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// The credentials of a profile in a file.
#[derive(Debug)]
pub(super) struct FileCredentials {
    path: PathBuf,
    profile: String,
}

impl FileCredentials {
    /// The file that the environment names, or the one in the home directory if there is one; `None` when the
    /// environment names credentials of another kind that AWS's own programs prefer.
    pub(super) fn of_environment() -> Option<Self> {
        let before = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"];
        if before.iter().any(|name| env::var_os(name).is_some()) {
            return None;
        }
        let named = env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let of_home = || {
            let path = PathBuf::from(env::var_os("HOME")?).join(".aws/credentials");
            path.exists().then_some(path)
        };
        let profile = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
        named.or_else(of_home).map(|path| Self { path, profile })
    }

    fn read(&self) -> Result<AwsCredential, String> {
        let text = fs::read_to_string(&self.path)
            .map_err(|error| format!("{} cannot be read: {error}", self.path.display()))?;
        parse(&text, &self.profile, &self.path)
    }
}

impl CredentialProvider for FileCredentials {
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
        Box::pin(async move { self.read().map(Arc::new).map_err(failed) })
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

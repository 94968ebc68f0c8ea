//! Namespaces that a list does not show: before Nomad 1.2.4 some take `*` for a name.

use futures::StreamExt;
use tokio::time::timeout;

use super::{
    Lists, Watcher,
    poll::{BODY_IDLE, PassError},
    split::Splitter,
};
use crate::{
    api::{Page, Query},
    streams::Resource,
};

impl<R: Resource> Watcher<R> {
    /// Whether the list could be empty, or refused, because the server takes `*` for a name.
    pub(super) fn may_hide_namespaces(&self) -> bool {
        R::OLD_WILDCARD
            && &*self.scope.namespace == "*"
            && self.lists == Lists::One
            && !self.wildcard_works
    }

    /// Whether namespaces are read one by one, or may have to be.
    pub(super) fn may_have_namespaces_apart(&self) -> bool {
        self.lists == Lists::EachNamespace || self.may_hide_namespaces()
    }

    /// Whether `*` hides objects, as it does before Nomad 1.2.4.
    pub(super) async fn find_namespaces(&mut self) -> Result<(), PassError> {
        let namespaces = match self.nomad.namespaces().await {
            Ok(namespaces) => namespaces,
            Err(err) if err.status().is_some() => {
                tracing::debug!(error = %err, "namespaces cannot be listed");
                return Ok(());
            }
            Err(err) => return Err(err.into()),
        };
        for namespace in namespaces {
            let query = Query { past: None, namespace: namespace.clone(), ..self.query() };
            let page = match R::list(&self.nomad, &query).await {
                Err(err) if err.is_forbidden() => continue,
                page => page?,
            };
            if self.has_elements(page).await? {
                tracing::warn!(
                    stream = R::NAME,
                    "namespace `*` does not show this list: Nomad before 1.2.4 does not know it, \
                     or the token may not use it. Every namespace is watched on its own; a newer \
                     Nomad, or a token for all namespaces, has it cost less"
                );
                self.lists = Lists::EachNamespace;
                self.probed = namespace;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a list has any element; the rest is not read.
    async fn has_elements(&self, page: Page) -> Result<bool, PassError> {
        let mut splitter = Splitter::default();
        let mut body = page.body;
        while let Some(chunk) =
            timeout(BODY_IDLE, body.next()).await.map_err(|_| PassError::Stalled)?
        {
            let chunk = chunk.map_err(|err| self.nomad.body_failed(R::NAME, err))?;
            if splitter.next_element(&mut &chunk[..])?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! What a token is, and what it may do.

use axum::{body::Body, http::StatusCode};
use serde_json::{Value, json};

use super::{Access, Answer, Consul, lock, permit, pretty, refuse, value};

impl Consul {
    /// Who answers.
    pub(super) fn agent(&self, access: Access) -> Answer {
        permit(access)?;
        Ok(pretty(&json!({"Config": {"NodeName": "standin", "Version": "1.8.7"}})))
    }

    /// The one token that there is.
    pub(super) fn token(&self, access: Access) -> Answer {
        if !self.has_acls() {
            return refuse(StatusCode::UNAUTHORIZED, "ACL support disabled");
        }
        if access == Access::Anonymous {
            return refuse(StatusCode::FORBIDDEN, "ACL not found");
        }
        Ok(pretty(&json!({
            "AccessorID": "58122ad3-de9d-2083-1de2-be3f791daecb",
            "Description": "Master Token",
            "Policies": [{
                "ID": "00000000-0000-0000-0000-000000000001",
                "Name": "global-management",
            }],
            "Local": false,
            "CreateIndex": 5,
            "ModifyIndex": 5,
        })))
    }

    pub(super) async fn authorize(&self, body: Body, access: Access) -> Answer {
        let body = value(body, "txn_max_req_len").await?;
        if !self.has_acls() {
            return refuse(StatusCode::UNAUTHORIZED, "ACL support disabled");
        }
        let Ok(Value::Array(mut wanted)) = serde_json::from_slice(&body) else {
            return refuse(StatusCode::BAD_REQUEST, "Failed to decode request body");
        };
        for each in &mut wanted {
            let segment = each["Segment"].as_str().unwrap_or_default();
            let writes = each["Resource"] == "key" && each["Access"] == "write";
            let allow = access == Access::Full && (!writes || self.may_write(segment));
            each["Allow"] = Value::Bool(allow);
            if let Some(each) = each.as_object_mut() {
                each.retain(|_, value| *value != "");
            }
        }
        Ok(pretty(&wanted))
    }

    fn has_acls(&self) -> bool {
        let rights = lock(&self.0.rights);
        rights.token.is_some() || rights.read_only.is_some()
    }
}

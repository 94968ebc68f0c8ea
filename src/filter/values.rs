//! A payload as values of the language: nothing is copied but what an expression asks for.

use std::sync::OnceLock;

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as Items, Sizer},
        types::{
            CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt, Kind, LIST_TYPE, MAP_TYPE,
            Type,
        },
        value::{CowVal, Val},
    },
};
use serde_json::{Map, Value};

/// A value of a payload. Whole numbers are exact up to 64 bits, signed or not; others are floating.
pub(super) fn value<'b, 'v>(value: &'v Value) -> CowVal<'b, 'v> {
    match value {
        Value::Null => CowVal::owned(CelNull),
        Value::Bool(it) => CowVal::owned(CelBool::from(*it)),
        Value::Number(number) => {
            if let Some(it) = number.as_i64() {
                CowVal::owned(CelInt::from(it))
            } else if let Some(it) = number.as_u64() {
                CowVal::owned(CelUInt::from(it))
            } else {
                CowVal::owned(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        Value::String(it) => CowVal::owned(CelString::from(it.as_str())),
        Value::Array(it) => CowVal::owned(List::new(it)),
        Value::Object(it) => CowVal::owned(Object::new(it)),
    }
}

/// Values that a loop goes through, made when one does.
type Made<'a> = OnceLock<Vec<Box<dyn Val + 'a>>>;

/// A list of a payload.
#[derive(Debug)]
struct List<'a> {
    items: &'a [Value],
    made: Made<'a>,
}

/// An object of a payload.
#[derive(Debug)]
struct Object<'a> {
    members: &'a Map<String, Value>,
    keys: Made<'a>,
}

/// Goes through values that were made.
struct Through<'b, 'a>(std::slice::Iter<'b, Box<dyn Val + 'a>>);

impl<'b, 'a: 'v, 'v> Items<'b, 'v> for Through<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|it| &**it as &(dyn Val + 'v))
    }
}

impl<'a> List<'a> {
    fn new(items: &'a [Value]) -> Self {
        Self { items, made: OnceLock::new() }
    }
}

impl<'a> Object<'a> {
    fn new(members: &'a Map<String, Value>) -> Self {
        Self { members, keys: OnceLock::new() }
    }

    fn find(&self, key: &dyn Val) -> Option<&'a Value> {
        self.members.get(key.downcast_ref::<CelString>()?.inner())
    }
}

impl Val for List<'_> {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        if other.get_type().kind() != Kind::List || size(other) != Some(self.items.len()) {
            return false;
        }
        let Some(others) = other.as_iterable() else { return false };
        let mut others = others.iter();
        self.items.iter().all(|it| others.next().is_some_and(|other| value(it).equals(other)))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(List::new(self.items))
    }
}

impl Val for Object<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        if other.get_type().kind() != Kind::Map || size(other) != Some(self.members.len()) {
            return false;
        }
        let Some(others) = other.as_indexer() else { return false };
        self.members.iter().all(|(key, it)| {
            let other = others.get(&CelString::from(key.as_str()));
            other.is_ok_and(|other| value(it).equals(&*other))
        })
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Object::new(self.members))
    }
}

/// How many elements a value has, if it is of a kind that has any.
pub(super) fn size(value: &dyn Val) -> Option<usize> {
    usize::try_from(*value.as_sizer()?.size().inner()).ok()
}

fn type_error(operator: &str, own: &Type, other: &dyn Val) -> ExecutionError {
    let types = vec![own.name().to_owned(), other.get_type().name().to_owned()];
    ExecutionError::no_such_overload(operator, types)
}

impl Container for List<'_> {
    fn contains(&self, wanted: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.items.iter().any(|it| value(it).equals(wanted)))
    }
}

impl Container for Object<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key).is_some())
    }
}

impl Sizer for List<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(self.items.len() as i64)
    }
}

impl Sizer for Object<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(self.members.len() as i64)
    }
}

impl Indexer for List<'_> {
    fn get<'b, 'v>(&'b self, at: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        element(self.items, at)
    }

    fn steal<'v>(self: Box<Self>, at: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        element(self.items, at).map(CowVal::into_owned)
    }
}

impl Indexer for Object<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        member(self, key)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        member(&self, key).map(CowVal::into_owned)
    }
}

fn element<'b, 'v>(items: &'v [Value], at: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let at = match (at.downcast_ref::<CelInt>(), at.downcast_ref::<CelUInt>()) {
        (Some(at), _) => usize::try_from(*at.inner()).ok(),
        (_, Some(at)) => usize::try_from(*at.inner()).ok(),
        _ => return Err(type_error("_[_]", &LIST_TYPE, at)),
    };
    let outside = || ExecutionError::IndexOutOfBounds(cel::Value::Null);
    at.and_then(|at| items.get(at)).map(value).ok_or_else(outside)
}

fn member<'b, 'v>(object: &Object<'v>, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(name) = key.downcast_ref::<CelString>() else {
        return Err(type_error("_[_]", &MAP_TYPE, key));
    };
    let missing = || ExecutionError::no_such_key(name.inner());
    object.find(key).map(value).ok_or_else(missing)
}

impl Iterable for List<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Items<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let make = || self.items.iter().map(|it| value(it).into_owned()).collect();
        Box::new(Through(self.made.get_or_init(make).iter()))
    }
}

impl Iterable for Object<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Items<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let key = |it| Box::new(CelString::from(String::as_str(it))) as Box<dyn Val>;
        let make = || self.members.keys().map(key).collect();
        Box::new(Through(self.keys.get_or_init(make).iter()))
    }
}

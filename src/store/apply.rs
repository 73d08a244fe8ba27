//! What the writer knows of the instances, and how a batch changes it and the tables together.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::explain;
use super::seal::{InstanceKey, WrappingKey, record_place, row_place};
use super::{
    Batch, DamagedInstance, InstanceId, InstanceRow, MAX_VALUE_BYTES, Op, Record, RecordName, StoreError,
};

/// An intact instance: its row, its open key and the version of each of its records.
#[derive(Clone)]
pub(super) struct Instance {
    row: InstanceRow,
    key: InstanceKey,
    /// Counts the batches that touched the instance; it is the version of what the latest of them wrote.
    sequence: u64,
    records: BTreeMap<RecordName, u64>,
}

/// What a batch or a transaction did to instances; `None` for one that it deleted.
pub(super) type Changes = BTreeMap<InstanceId, Option<Instance>>;

/// Two columns of a record as they stand in the table, where anything may stand after tampering.
type NameAndVersion = rusqlite::Result<(Vec<u8>, i64)>;

/// All instances of the database, as of the last transaction.
#[derive(Default)]
pub(super) struct Catalogue(BTreeMap<InstanceId, Result<Instance, DamagedInstance>>);

impl Catalogue {
    /// Reads all instances, opens their keys and checks their seals.
    pub(super) fn load(connection: &Connection, wrapping: &WrappingKey) -> rusqlite::Result<Self> {
        let mut records: BTreeMap<i64, Vec<NameAndVersion>> = BTreeMap::new();
        let mut statement = connection.prepare("SELECT instance, name, version FROM record")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entry = row.get(1).and_then(|name| Ok((name, row.get(2)?)));
            records.entry(row.get(0)?).or_default().push(entry);
        }

        let mut instances = BTreeMap::new();
        let mut statement = connection.prepare(
            "SELECT id, parent, handle, name, uuid, attributes, sequence, seal, wrapped
             FROM instance LEFT JOIN instance_key ON instance_key.instance = instance.id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            // The tables admit no such number; one that was forged belongs to no instance.
            let Ok(id) = u64::try_from(number).map(InstanceId) else { continue };
            let own = records.remove(&number).unwrap_or_default();
            let instance = read_instance(id, row, own, wrapping).map_err(|what| DamagedInstance {
                id,
                name: row.get("name").ok(),
                uuid: row.get("uuid").ok(),
                error: StoreError::CorruptedInstance { instance: id, what },
            });
            instances.insert(id, instance);
        }
        Ok(Self(instances))
    }

    pub(super) fn intact(&self) -> Vec<InstanceRow> {
        self.0.values().filter_map(|slot| slot.as_ref().ok()).map(|instance| instance.row.clone()).collect()
    }

    pub(super) fn damaged(&self) -> Vec<DamagedInstance> {
        self.0.values().filter_map(|slot| slot.as_ref().err()).cloned().collect()
    }

    pub(super) fn merge(&mut self, changes: Changes) {
        for (id, change) in changes {
            match change {
                Some(instance) => self.0.insert(id, Ok(instance)),
                None => self.0.remove(&id),
            };
        }
    }

    /// Reads and opens all records of an instance.
    pub(super) fn read_records(
        &self,
        connection: &Connection,
        path: &std::path::Path,
        id: InstanceId,
    ) -> Result<Vec<Record>, StoreError> {
        let instance = match self.0.get(&id) {
            None => return Err(StoreError::UnknownInstance(id)),
            Some(Err(damaged)) => return Err(damaged.error.clone()),
            Some(Ok(instance)) => instance,
        };
        let failed = explain(path, "read records");
        let mut found = Vec::with_capacity(instance.records.len());
        let mut statement = connection
            .prepare_cached("SELECT sealed FROM record WHERE instance = ?1 AND name = ?2")
            .map_err(&failed)?;
        for (name, version) in &instance.records {
            let corrupted = || StoreError::CorruptedRecord { instance: id, record: *name };
            let sealed: Vec<u8> =
                match statement.query_row(params![integer(id.0)?, name.as_bytes()], |row| row.get(0)) {
                    Ok(sealed) => sealed,
                    Err(rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::InvalidColumnType(..)) => {
                        return Err(corrupted());
                    }
                    Err(error) => return Err(failed(error)),
                };
            let value =
                instance.key.open(&record_place(id, name, *version), &sealed).map_err(|_| corrupted())?;
            found.push((*name, value));
        }
        Ok(found)
    }
}

fn read_instance(
    id: InstanceId,
    row: &rusqlite::Row<'_>,
    records: Vec<NameAndVersion>,
    wrapping: &WrappingKey,
) -> Result<Instance, &'static str> {
    const ROW: &str = "its row has values of the wrong kind";
    const RECORDS: &str = "its records have names or versions of the wrong kind";
    let parent: Option<i64> = row.get("parent").map_err(|_| ROW)?;
    let parent = parent.map(u64::try_from).transpose().map_err(|_| ROW)?.map(InstanceId);
    let unsigned = |column: &str| -> Result<u64, &'static str> {
        let number: i64 = row.get(column).map_err(|_| ROW)?;
        u64::try_from(number).map_err(|_| ROW)
    };
    let details = InstanceRow {
        id,
        parent,
        handle: u32::try_from(unsigned("handle")?).map_err(|_| ROW)?,
        name: row.get("name").map_err(|_| ROW)?,
        uuid: row.get("uuid").map_err(|_| ROW)?,
        attributes: u32::try_from(unsigned("attributes")?).map_err(|_| ROW)?,
    };
    let sequence = unsigned("sequence")?;
    let seal: Vec<u8> = row.get("seal").map_err(|_| ROW)?;

    let mut versions = BTreeMap::new();
    for record in records {
        let (name, version) = record.map_err(|_| RECORDS)?;
        let name = RecordName::new(&name).map_err(|_| RECORDS)?;
        versions.insert(name, u64::try_from(version).map_err(|_| RECORDS)?);
    }

    let wrapped: Option<Vec<u8>> = row.get("wrapped").map_err(|_| ROW)?;
    let wrapped = wrapped.ok_or("its key is missing")?;
    let key = wrapping.unwrap(id, &wrapped).map_err(|_| "the seal of its key does not hold")?;
    key.open(&row_place(&details, sequence, versions.iter()), &seal).map_err(
        |_| "its row was changed, or a record was removed, added or put back to an earlier version",
    )?;
    Ok(Instance { row: details, key, sequence, records: versions })
}

/// A batch that is being applied: changes of this batch, over those of the transaction, over the catalogue.
pub(super) struct Draft<'a> {
    pub(super) connection: &'a Connection,
    pub(super) path: &'a std::path::Path,
    pub(super) wrapping: &'a WrappingKey,
    pub(super) reserved: &'a BTreeSet<InstanceId>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) transaction: &'a Changes,
    pub(super) batch: Changes,
}

impl<'a> Draft<'a> {
    /// Whether nothing that can be known before keeps `batch` from being applied.
    pub(super) fn is_safe(&self, batch: &Batch) -> bool {
        batch.ops.iter().all(|op| match op {
            Op::Put { instance, value, .. } => value.len() <= MAX_VALUE_BYTES && self.find(*instance).is_ok(),
            Op::Delete { instance, .. } => self.find(*instance).is_ok(),
            Op::CreateInstance(_) | Op::UpdateInstance(_) | Op::DeleteInstance(_) => false,
        })
    }

    /// Applies all operations and seals the instances that they touched.
    pub(super) fn apply(mut self, batch: &Batch) -> Result<Changes, StoreError> {
        for op in &batch.ops {
            match op {
                Op::CreateInstance(row) => self.create(row)?,
                Op::UpdateInstance(row) => self.update(row)?,
                Op::DeleteInstance(id) => self.delete(*id)?,
                Op::Put { instance, key, value } => self.put(*instance, key, value)?,
                Op::Delete { instance, key } => self.remove(*instance, key)?,
            }
        }
        self.seal_rows()?;
        Ok(self.batch)
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<'a> {
        explain(self.path, "write")
    }

    /// The instance as this batch sees it so far.
    fn find(&self, id: InstanceId) -> Result<&Instance, StoreError> {
        if let Some(change) = self.batch.get(&id).or_else(|| self.transaction.get(&id)) {
            return change.as_ref().ok_or(StoreError::UnknownInstance(id));
        }
        match self.catalogue.0.get(&id) {
            Some(Ok(instance)) => Ok(instance),
            Some(Err(damaged)) => Err(damaged.error.clone()),
            None => Err(StoreError::UnknownInstance(id)),
        }
    }

    /// The instance for a change. The first one of a batch counts its sequence on.
    fn touch(&mut self, id: InstanceId) -> Result<&mut Instance, StoreError> {
        if !self.batch.contains_key(&id) {
            let mut instance = self.find(id)?.clone();
            instance.sequence = instance.sequence.checked_add(1).ok_or(StoreError::NumberTooLarge)?;
            self.batch.insert(id, Some(instance));
        }
        self.batch.get_mut(&id).and_then(Option::as_mut).ok_or(StoreError::UnknownInstance(id))
    }

    fn create(&mut self, row: &InstanceRow) -> Result<(), StoreError> {
        let was_touched = self.batch.contains_key(&row.id) || self.transaction.contains_key(&row.id);
        if was_touched || !self.reserved.contains(&row.id) {
            return Err(StoreError::NotReserved(row.id));
        }
        self.check_parent(row)?;
        self.check_unique(row)?;
        let key = InstanceKey::generate()?;
        let wrapped = self.wrapping.wrap(row.id, &key)?;
        let (parent, id) = (row.parent.map(|parent| integer(parent.0)).transpose()?, integer(row.id.0)?);
        self.connection
            .prepare_cached(
                "INSERT INTO instance (id, parent, handle, name, uuid, attributes, sequence, seal)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, x'')",
            )
            .and_then(|mut statement| {
                statement.execute(params![id, parent, row.handle, row.name, row.uuid, row.attributes])
            })
            .map_err(self.failed())?;
        self.connection
            .prepare_cached("INSERT INTO instance_key (instance, wrapped) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute(params![id, wrapped]))
            .map_err(self.failed())?;
        let instance = Instance { row: row.clone(), key, sequence: 1, records: BTreeMap::new() };
        self.batch.insert(row.id, Some(instance));
        Ok(())
    }

    fn update(&mut self, row: &InstanceRow) -> Result<(), StoreError> {
        self.find(row.id)?;
        self.check_parent(row)?;
        self.check_unique(row)?;
        let (parent, id) = (row.parent.map(|parent| integer(parent.0)).transpose()?, integer(row.id.0)?);
        self.connection
            .prepare_cached(
                "UPDATE instance SET parent = ?2, handle = ?3, name = ?4, uuid = ?5, attributes = ?6 WHERE id = ?1",
            )
            .and_then(|mut statement| {
                statement.execute(params![id, parent, row.handle, row.name, row.uuid, row.attributes])
            })
            .map_err(self.failed())?;
        self.touch(row.id)?.row = row.clone();
        Ok(())
    }

    /// Also deletes a damaged instance: an operator must be able to get rid of it.
    fn delete(&mut self, id: InstanceId) -> Result<(), StoreError> {
        match self.find(id) {
            Ok(_) | Err(StoreError::CorruptedInstance { .. }) => {}
            Err(error) => return Err(error),
        }
        let child: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM instance WHERE parent = ?1 LIMIT 1")
            .and_then(|mut statement| statement.query_row([integer_sql(id)?], |row| row.get(0)).optional())
            .map_err(self.failed())?;
        if child.is_some() {
            return Err(StoreError::HasDescendants(id));
        }
        self.connection
            .prepare_cached("DELETE FROM instance WHERE id = ?1")
            .and_then(|mut statement| statement.execute([integer_sql(id)?]))
            .map_err(self.failed())?;
        self.batch.insert(id, None);
        Ok(())
    }

    fn put(&mut self, id: InstanceId, name: &RecordName, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(StoreError::ValueTooLarge { instance: id, record: *name, bytes: value.len() });
        }
        let instance = self.touch(id)?;
        let version = instance.sequence;
        let sealed = instance.key.seal(&record_place(id, name, version), value)?;
        let is_there = instance.records.insert(*name, version).is_some();
        // The other statement looks for the record twice, and for a place for a new one.
        let changed = is_there && self.replace(id, name, version, &sealed).map_err(self.failed())? > 0;
        if changed {
            return Ok(());
        }
        self.connection
            .prepare_cached(
                "INSERT INTO record (instance, name, version, sealed) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (instance, name) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
            )
            .and_then(|mut statement| {
                statement.execute(params![integer_sql(id)?, name.as_bytes(), integer_to_sql(version)?, sealed])
            })
            .map_err(self.failed())?;
        Ok(())
    }

    /// How many records there were to be replaced, one or none.
    fn replace(
        &self,
        id: InstanceId,
        name: &RecordName,
        version: u64,
        sealed: &[u8],
    ) -> rusqlite::Result<usize> {
        self.connection
            .prepare_cached("UPDATE record SET version = ?3, sealed = ?4 WHERE instance = ?1 AND name = ?2")?
            .execute(params![integer_sql(id)?, name.as_bytes(), integer_to_sql(version)?, sealed])
    }

    fn remove(&mut self, id: InstanceId, name: &RecordName) -> Result<(), StoreError> {
        if self.touch(id)?.records.remove(name).is_none() {
            return Ok(());
        }
        self.connection
            .prepare_cached("DELETE FROM record WHERE instance = ?1 AND name = ?2")
            .and_then(|mut statement| statement.execute(params![integer_sql(id)?, name.as_bytes()]))
            .map_err(self.failed())?;
        Ok(())
    }

    fn seal_rows(&self) -> Result<(), StoreError> {
        for (id, instance) in &self.batch {
            let Some(instance) = instance else { continue };
            let place = row_place(&instance.row, instance.sequence, instance.records.iter());
            let seal = instance.key.seal(&place, &[])?;
            self.connection
                .prepare_cached("UPDATE instance SET sequence = ?2, seal = ?3 WHERE id = ?1")
                .and_then(|mut statement| {
                    statement.execute(params![integer_sql(*id)?, integer_to_sql(instance.sequence)?, seal])
                })
                .map_err(self.failed())?;
        }
        Ok(())
    }

    /// The parent exists, and is not the instance itself nor one of its descendants.
    fn check_parent(&self, row: &InstanceRow) -> Result<(), StoreError> {
        let mut next = row.parent;
        while let Some(ancestor) = next {
            if ancestor == row.id {
                return Err(StoreError::Cycle(row.id));
            }
            next = self.find(ancestor)?.row.parent;
        }
        Ok(())
    }

    fn check_unique(&self, row: &InstanceRow) -> Result<(), StoreError> {
        let clash: Option<(bool, bool)> = self
            .connection
            .prepare_cached(
                "SELECT name = ?2, handle = ?3 FROM instance
                 WHERE id <> ?1 AND (name = ?2 OR handle = ?3 OR uuid = ?4) LIMIT 1",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(params![integer_sql(row.id)?, row.name, row.handle, row.uuid], |found| {
                        Ok((found.get(0)?, found.get(1)?))
                    })
                    .optional()
            })
            .map_err(self.failed())?;
        let taken = match clash {
            None => return Ok(()),
            Some((true, _)) => format!("the name {:?}", row.name),
            Some((_, true)) => format!("the handle {:#010x}", row.handle),
            Some(_) => format!("the UUID {}", hex::encode(row.uuid)),
        };
        Err(StoreError::Conflict { taken })
    }
}

fn integer(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::NumberTooLarge)
}

fn integer_sql(id: InstanceId) -> rusqlite::Result<i64> {
    integer_to_sql(id.0)
}

fn integer_to_sql(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

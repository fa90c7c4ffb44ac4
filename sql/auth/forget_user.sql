-- Nothing is known of a role ($1) any more.
DELETE FROM rustydb.principals WHERE role_name = $1;
DELETE FROM rustydb.role_grants WHERE role_name = $1;
DELETE FROM rustydb.api_keys WHERE role_name = $1;
DELETE FROM rustydb.logins WHERE role_name = $1

-- The administrator and its database, on the first start of the embedded PostgreSQL, with the
-- verifier of its password.
CREATE ROLE rustydb LOGIN SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD $1

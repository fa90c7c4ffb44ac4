-- The administrator and its database, on the first start of the embedded PostgreSQL; the quoted
-- verifier of its password is put in.
CREATE ROLE rustydb LOGIN SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD $1

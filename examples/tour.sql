-- A tour for psql: psql "postgresql://rustydb@localhost:5432/rustydb" -f examples/tour.sql
\set ON_ERROR_STOP on
create temporary table fruit (name text primary key, price numeric(6, 2), picked timestamptz);
\copy fruit (name, price) from stdin with (format csv)
apple,0.50
pear,0.65
plum,0.20
\.
\d fruit
prepare cheaper (numeric) as select name, price from fruit where price < $1 order by price;
execute cheaper (0.60);
begin;
update fruit set picked = now() where name = 'plum';
savepoint before_mistake;
\set ON_ERROR_STOP off
insert into fruit values ('plum', 1, null);
\set ON_ERROR_STOP on
rollback to before_mistake;
commit;
select name, picked is not null as picked from fruit order by name;

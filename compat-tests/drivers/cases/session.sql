show search_path
set search_path = other, public
select * from people order by id
begin
select * from people order by id
set local search_path = public
select * from people order by id
commit
select * from people order by id
begin
set search_path = public
rollback
show search_path
reset search_path
set time zone 'Asia/Kolkata'
select timestamptz '2024-07-01 12:00:00+00'::text
begin
select timestamptz '2024-07-01 12:00:00+00'::text
rollback
select timestamptz '2024-07-01 12:00:00+00'::text
set time zone 'America/New_York'
select timestamptz '2024-07-01 12:00:00+00'::text
reset time zone
set work_mem = '7MB'
set session statement_timeout = '90s'
set my.own = 'x'
select set_config('my.other', 'y', false)
begin
select set_config('my.local', 'z', true)
select current_setting('my.local')
commit
select current_setting('my.local')
select current_setting('work_mem'), current_setting('statement_timeout'), current_setting('my.own'), current_setting('my.other')
begin
set my.own = 'rolled back'
savepoint a
set my.own = 'rolled back too'
rollback to a
show my.own
rollback
show my.own
begin
set my.own = 'committed'
commit
show my.own
begin
set my.own = 'lost by an error'
select 1 / 0
show my.own
commit
show my.own
reset all
show work_mem
set application_name = 'my name'
show application_name
set datestyle = 'German, DMY'
select '03.02.2024'::date::text
reset datestyle
set default_transaction_isolation = 'serializable'
begin
show transaction_isolation
commit
begin isolation level repeatable read read only
show transaction_isolation
insert into people values (9, 'not now', 1, null)
rollback
reset default_transaction_isolation
set session characteristics as transaction read only
insert into people values (9, 'not now either', 1, null)
set session characteristics as transaction read write
create temporary table scratch (id serial, t text)
insert into scratch (t) values ('one'), ('two')
begin
insert into scratch (t) values ('three')
rollback
select t from scratch order by id
insert into scratch (t) select 'row ' || i from generate_series(1, 100) i
select count(*), max(id) > 100 from scratch
select currval(pg_get_serial_sequence('scratch', 'id')) > 100, lastval() > 100
drop table scratch
select to_regclass('scratch') is null
create temporary table gone (a int) on commit drop
select to_regclass('gone') is null
begin
create temporary table kept (a int) on commit delete rows
insert into kept values (1)
select count(*) from kept
commit
select count(*) from kept
discard temp
select to_regclass('kept') is null
create temporary view passing as select 1 as one
select * from passing
drop view passing
create temporary sequence numbers
select nextval('numbers')
select nextval('numbers')
select currval('numbers')
drop sequence numbers
select pg_advisory_lock(815), pg_advisory_lock(815), pg_try_advisory_lock_shared(816)
select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
begin
select pg_advisory_xact_lock(817)
select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
rollback
select pg_advisory_unlock(815)
select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
select pg_advisory_unlock(815)
select pg_advisory_unlock_all()
select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
prepare by_id (int) as select name from people where id = $1
execute by_id(1)
begin
execute by_id(2)
rollback
execute by_id(2)
prepare by_id (int) as select 1
select name, statement, parameter_types::text from pg_prepared_statements where name = 'by_id'
deallocate by_id
execute by_id(1)
begin
prepare in_vain as select 'a prepared statement outlives a rollback'
rollback
execute in_vain
deallocate all
execute in_vain
begin
declare held cursor with hold for select i, i * i as square from generate_series(1, 50) i
fetch 2 from held
commit
fetch 2 from held
begin
fetch 1 from held
rollback
fetch 1 from held
select name, is_holdable from pg_cursors where name = 'held'
close held
fetch 1 from held
begin
declare scrolling scroll cursor for select i from generate_series(1, 10) i
fetch last from scrolling
fetch backward 2 from scrolling
fetch absolute 4 from scrolling
close scrolling
commit
select setseed(0.5)
select random() is not null
set role pg_monitor
select current_user
reset role
select current_user = session_user
set client_min_messages = 'error'
set client_min_messages = 'notice'
begin
lock table people in access exclusive mode
savepoint one
insert into people values (4, 'Alan', 41, 1)
savepoint two
insert into people values (5, 'Kurt', 71, 1)
rollback to savepoint two
release savepoint one
commit
select name from people order by id
delete from people where id > 2
select lo_create(4711)
begin
select lo_open(4711, 131072)
select lowrite(0, '\x010203')
commit
select lo_get(4711)::text
select lo_unlink(4711)
set plan_cache_mode = force_generic_plan
discard all
show plan_cache_mode

select 1 from people wher id = 1
select nme from people
select * from nowhere
select nosuch(1)
insert into people values (1, 'Eve', 1, null)
insert into people values (3, 'Ada', 1, null)
insert into people values (3, null, 1, null)
insert into people values (3, 'Eve', -1, null)
insert into people values (3, 'Eve', 1, 99)
delete from people where id = 1
select 1 / 0
select 'x'::int
select 10::small
select 'angry'::mood
select complain('way')
select 'é👋' from people where nowhere = 1
select repeat('x', 2000000000) || repeat('x', 2000000000)
drop table people_that_never_were
create table people (a int)
set work_mem = 'much'
set local no.such = 1
select current_setting('never.set')
select pg_sleep('x')
execute never_prepared
fetch from never_declared
lock table people
vacuum_now

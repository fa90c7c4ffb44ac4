// lib/pq under database/sql: a program that uses what the driver has, and tells what it saw.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	. "rustydb.example/drivers/common"
)

var ctx = context.Background()

func open(options string) *sql.DB {
	db, err := sql.Open("postgres", Where("", options))
	Must(err)
	return db
}

// single is a connection of its own.
func single(db *sql.DB) *sql.Conn {
	conn, err := db.Conn(ctx)
	Must(err)
	return conn
}

// describe is everything that PostgreSQL said about an error.
func describe(err error) any {
	var said *pq.Error
	if errors.As(err, &said) {
		return []string{said.Severity, string(said.Code), said.Message, said.Detail, said.Hint,
			said.Position, said.InternalPosition, said.InternalQuery, said.Where, said.Schema,
			said.Table, said.Column, said.DataTypeName, said.Constraint}
	}
	if err != nil {
		return strings.Split(err.Error(), "127.0.0.1")[0]
	}
	return err
}

type querier interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

func collect(found *sql.Rows) (all [][]string, err error) {
	defer found.Close()
	types, err := found.ColumnTypes()
	if err != nil {
		return nil, err
	}
	for found.Next() {
		values := make([]any, len(types))
		pointers := make([]any, len(types))
		for i := range values {
			pointers[i] = &values[i]
		}
		if err := found.Scan(pointers...); err != nil {
			return nil, err
		}
		row := []string{}
		for _, value := range values {
			if bytes, ok := value.([]byte); ok {
				value = string(bytes)
			}
			row = append(row, fmt.Sprintf("%T %v", value, value))
		}
		all = append(all, row)
	}
	return all, found.Err()
}

func rows(on querier, query string, arguments ...any) (any, error) {
	found, err := on.QueryContext(ctx, query, arguments...)
	if err != nil {
		return nil, err
	}
	return collect(found)
}

func attempt(what, query string, on querier, arguments ...any) {
	said, err := rows(on, query, arguments...)
	if err != nil {
		Say(what, "->", describe(err))
	} else {
		Say(what, "->", said)
	}
}

func exec(conn *sql.Conn, query string, arguments ...any) {
	_, err := conn.ExecContext(ctx, query, arguments...)
	Must(err)
}

func checkValues(conn *sql.Conn) {
	Section("values")
	for _, line := range Cases("values.txt") {
		kind, literal, _ := strings.Cut(line, "\t")
		quoted := strings.ReplaceAll(literal, "'", "''")
		attempt(line, fmt.Sprintf("select '%s'::%s", quoted, kind), conn)
		attempt("back", fmt.Sprintf("select ($1::text::%s)::text, $1::text::%[1]s", kind), conn, literal)
	}
	when := time.Date(2024, 3, 31, 1, 30, 0, 7000, time.FixedZone("", 19800))
	for kind, value := range map[string]any{"timestamptz": when} {
		attempt(kind, fmt.Sprintf("select ($1::%s)::text, $1::%[1]s", kind), conn, value)
	}
	attempt("array", "select $1::int[], $2::text[]", conn, pq.Array([]int64{1, 2}),
		pq.Array([]string{"a", "NULL", "b c"}))
	attempt("bytea", "select $1::bytea", conn, []byte{0, 255})
	attempt("null", "select $1::int, $2::bool", conn, nil, true)
	binary := single(open("binary_parameters=yes"))
	attempt("binary", "select $1::bytea, $2::text, $3::int", binary, []byte{0, 255}, "é", 7)
	Must(binary.Close())
}

func checkTransactions(conn *sql.Conn) {
	Section("transactions")
	count := "select count(*) from people"
	for _, level := range []sql.IsolationLevel{sql.LevelSerializable, sql.LevelRepeatableRead} {
		tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		Must(err)
		attempt("level", "show transaction_isolation", tx)
		attempt("insert", "insert into people values (11, 'Barbara', 80, 1)", tx)
		attempt("savepoint", "savepoint s", tx)
		attempt("twice", "insert into people values (11, 'Barbara', 80, 1)", tx)
		attempt("aborted", count, tx)
		attempt("rollback to", "rollback to s", tx)
		attempt("count", count, tx)
		attempt("delete", "delete from people where id = 11 returning name", tx)
		Must(tx.Commit())
	}
	tx, err := conn.BeginTx(ctx, nil)
	Must(err)
	attempt("insert", "insert into people values (10, 'Edsger', 72, null)", tx)
	Must(tx.Rollback())
	attempt("rolled back", count, conn)
	tx, err = conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	Must(err)
	attempt("read only", "delete from people", tx)
	Say("commit", describe(tx.Commit()))
}

func checkPrepared(db *sql.DB) {
	Section("prepared statements")
	conn := single(db)
	kept := []*sql.Stmt{}
	for n := range 150 {
		query := fmt.Sprintf("select %d + $1::int, name from people where id = $2", n)
		statement, err := conn.PrepareContext(ctx, query)
		Must(err)
		kept = append(kept, statement)
	}
	for turn := range 4 {
		for n, statement := range kept {
			tx, err := conn.BeginTx(ctx, nil)
			Must(err)
			found, err := tx.StmtContext(ctx, statement).QueryContext(ctx, turn, 1+n%2)
			Must(err)
			all, err := collect(found)
			Must(err)
			Must(tx.Commit())
			Say(turn, all)
		}
	}
	exec(conn, "create table shape (a int)")
	statement, err := conn.PrepareContext(ctx, "select * from shape")
	Must(err)
	exec(conn, "alter table shape add b text")
	_, err = statement.QueryContext(ctx)
	Say("a changed table", describe(err))
	_, err = kept[0].QueryContext(ctx, "x", 1)
	Say("a wrong value", describe(err))
	for _, statement := range kept[:100] {
		Must(statement.Close())
	}
	_, err = conn.PrepareContext(ctx, "select nope")
	Say("bad", describe(err))
	exec(conn, "deallocate all")
	_, err = kept[120].QueryContext(ctx, 1, 1)
	Say("after deallocate all", describe(err))
	exec(conn, "drop table shape")
	Must(conn.Close())
}

func checkSession() {
	Section("session")
	conn := single(open(""))
	for _, query := range Cases("session.sql") {
		attempt(query, query, conn)
	}
	Must(conn.Close())
	conn = single(open("search_path=other&application_name=of+its+own"))
	attempt("start-up", "select * from people", conn)
	attempt("start-up", "show application_name", conn)
	exec(conn, "set search_path = public; reset all")
	attempt("reset", "show search_path", conn)
	Must(conn.Close())
}

func checkCopy(conn *sql.Conn) {
	Section("copy")
	exec(conn, "create table copied (id int, name text)")
	load := func(query string, count int, value any) (err error) {
		tx, err := conn.BeginTx(ctx, nil)
		Must(err)
		defer func() {
			if err != nil {
				Must(tx.Rollback())
			}
		}()
		statement, err := tx.Prepare(query)
		if err != nil {
			return err
		}
		for n := range count {
			if _, err := statement.Exec(n, value); err != nil {
				return err
			}
		}
		if _, err := statement.Exec(); err != nil {
			return err
		}
		if err := statement.Close(); err != nil {
			return err
		}
		return tx.Commit()
	}
	Say(describe(load("copy copied (id, name) from stdin", 5000, "a\tb\\")))
	Say("malformed", describe(load("copy copied (name, id) from stdin", 1, "not a number")))
	Say("nowhere", describe(load("copy nowhere (a, b) from stdin", 1, "")))
	attempt("count", "select count(*), sum(id), max(name) from copied", conn)
	exec(conn, "drop table copied")
}

func checkErrors(conn *sql.Conn) {
	Section("errors")
	for _, query := range Cases("errors.sql") {
		attempt(query, query, conn)
		attempt("extended", query+" -- $1", conn)
		statement, err := conn.PrepareContext(ctx, query)
		if err == nil {
			_, err = statement.ExecContext(ctx)
			Must(statement.Close())
		}
		Say("prepared", describe(err))
	}
	attempt("several", "select 1; select 2; select 1 / 0", conn)
	attempt("then", "select 'still here'", conn)
}

func checkNotices() {
	Section("notices")
	connector, err := pq.NewConnector(Where("", ""))
	Must(err)
	hear := pq.ConnectorWithNoticeHandler(connector, func(notice *pq.Error) {
		Say("notice", describe(notice))
	})
	db := sql.OpenDB(hear)
	attempt("chat", "select chat($1)", db, "you")
	attempt("drop", "drop table if exists never_there", db)
	Must(db.Close())
}

func checkNotify(sender *sql.Conn) {
	Section("notifications")
	listener := pq.NewListener(Where("", ""), time.Second, time.Second, nil)
	said := func() {
		select {
		case notification := <-listener.Notify:
			Say(notification.Channel, notification.Extra)
		case <-time.After(10 * time.Second):
			Say("nothing")
		}
	}
	Must(listener.Listen("news"))
	Must(listener.Listen("Other News"))
	exec(sender, "notify news, 'one'")
	said()
	exec(sender, "select pg_notify('Other News', $1)", "two é")
	said()
	Must(listener.Ping())
	Must(listener.Unlisten("news"))
	exec(sender, "notify news, 'unheard'")
	exec(sender, `notify "Other News", 'heard'`)
	said()
	Must(listener.Close())
}

func checkCancel(db *sql.DB, conn *sql.Conn) {
	Section("cancel")
	for range 2 {
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := db.ExecContext(limited, "select pg_sleep(30)")
		cancel()
		Say("a deadline", describe(err))
		attempt("then", "select 'still here'", db)
	}
	limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	tx, err := db.BeginTx(limited, nil)
	Must(err)
	_, err = tx.ExecContext(limited, "select pg_sleep(30)")
	Say("in a transaction", err != nil)
	Say(tx.Rollback() != nil)
	attempt("then", "select 'still here'", db)
	exec(conn, "set statement_timeout = '200ms'")
	attempt("timed out", "select pg_sleep(30)", conn)
	exec(conn, "reset statement_timeout")
	attempt("then", "select 'still here'", conn)
}

func checkBig(conn *sql.Conn) {
	Section("big values")
	for _, size := range []int{1 << 20, 20 << 20} {
		text := strings.Repeat("0123456789abcdef", size/16)
		attempt("sent", "select length($1::text), md5($1::text)", conn, text)
		var back []byte
		data := bytes.Repeat([]byte("rustydb!"), size/8)
		Must(conn.QueryRowContext(ctx, "select $1::bytea", data).Scan(&back))
		Say(Digest(back))
	}
}

// oneOfMany must see what it set itself and nothing of the others.
func oneOfMany(db *sql.DB, number int) (seen []any) {
	conn := single(db)
	defer conn.Close()
	see := func(query string, arguments ...any) {
		said, err := rows(conn, query, arguments...)
		if err != nil {
			said = describe(err)
		}
		seen = append(seen, said)
	}
	see(fmt.Sprintf("set time zone '%s'", Zone(number)))
	see(fmt.Sprintf("set my.number = %d", number))
	see("set search_path = " + SchemaOf(number))
	see(fmt.Sprintf("prepare mine as select %d", number))
	temporary := number%8 == 0
	if temporary {
		see(fmt.Sprintf("create temporary table mine as select %d as n", number))
	}
	mine, err := conn.PrepareContext(ctx, fmt.Sprintf("select %d + $1::int", number))
	Must(err)
	for turn := range 5 {
		see("begin")
		see("show timezone")
		see("show my.number")
		see("select name from people order by id limit 1")
		see("commit")
		see("execute mine")
		var sum int
		Must(mine.QueryRowContext(ctx, turn).Scan(&sum))
		seen = append(seen, sum)
		see("select to_regclass('mine') is null")
		if temporary {
			see("select * from mine")
		}
		see("select 1 / $1::int", 0)
		see("select name from pg_prepared_statements where name = 'mine'")
	}
	Must(mine.Close())
	see("deallocate mine")
	see("discard temp")
	see("reset all")
	return seen
}

func checkMany() {
	Section("many clients")
	db := open("")
	defer db.Close()
	db.SetMaxOpenConns(Clients())
	seen := make([][]any, Clients())
	var group sync.WaitGroup
	for number := range seen {
		group.Add(1)
		go func() {
			defer group.Done()
			seen[number] = oneOfMany(db, number)
		}()
	}
	group.Wait()
	for number, seen := range seen {
		Say(number, seen)
	}
}

func checkReconnect(other *sql.Conn) {
	Section("reconnect")
	db := open("")
	conn := single(db)
	exec(conn, "begin")
	var pid int
	Must(conn.QueryRowContext(ctx, "select pg_backend_pid()").Scan(&pid))
	done := make(chan error)
	go func() {
		time.Sleep(300 * time.Millisecond)
		_, err := other.ExecContext(ctx, "select pg_terminate_backend($1)", pid)
		done <- err
	}()
	attempt("terminated", "select pg_sleep(30)", conn)
	Must(<-done)
	attempt("closed", "select 1", conn)
	conn.Close()
	attempt("again", "select 'a new one works'", db)
	attempt("by itself", "select pg_terminate_backend(pg_backend_pid())", db)
	attempt("again", "select 'a new one works'", db)
	nowhere, err := sql.Open("postgres", Where("nosuch", ""))
	Must(err)
	Say("no such database", describe(nowhere.Ping()))
	Must(db.Close())
}

func main() {
	db := open("")
	conn := single(db)
	for _, query := range Cases("schema.sql") {
		exec(conn, query)
	}
	checkValues(conn)
	checkTransactions(conn)
	checkPrepared(db)
	checkSession()
	checkCopy(conn)
	checkErrors(conn)
	checkNotices()
	checkNotify(conn)
	checkCancel(db, conn)
	checkBig(conn)
	checkMany()
	checkReconnect(conn)
	Must(conn.Close())
	Must(db.Close())
	Section("end")
}

// Package common is what the Go programs share: the transcript, the cases, where the server is.
package common

import (
	"crypto/md5"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Where is the server's address as a URL; database "" stands for the usual one.
func Where(database, options string) string {
	if database == "" {
		database = os.Getenv("PGDATABASE")
	}
	where := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(os.Getenv("PGUSER"), os.Getenv("PGPASSWORD")),
		Host:     os.Getenv("PGHOST") + ":" + os.Getenv("PGPORT"),
		Path:     database,
		RawQuery: strings.TrimSuffix("sslmode=disable&"+options, "&"),
	}
	return where.String()
}

// Clients is how many clients there are when there are many.
func Clients() int {
	clients, err := strconv.Atoi(os.Getenv("DRIVER_CLIENTS"))
	Must(err)
	return clients
}

// Cases are the lines of a file that all programs share.
func Cases(name string) []string {
	text, err := os.ReadFile(filepath.Join(os.Getenv("DRIVER_CASES"), name))
	Must(err)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// Must ends the program when something fails that must not.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Say adds a line to the transcript; it must not depend on time, process or object numbers.
func Say(what ...any) {
	for i, word := range what {
		if text, ok := word.(string); ok {
			what[i] = strconv.QuoteToGraphic(text)
		} else if bytes, ok := word.([]byte); ok {
			what[i] = fmt.Sprintf("%x", bytes)
		} else {
			what[i] = fmt.Sprintf("%+v", word)
		}
	}
	fmt.Println(what...)
}

// Section begins a part.
func Section(name string) {
	fmt.Println("---", name)
}

// Digest stands for a value that is too long to show.
func Digest(data []byte) string {
	return fmt.Sprintf("%d bytes, %x", len(data), md5.Sum(data))
}

// Zone is the time zone of a client.
func Zone(number int) string {
	return []string{"UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York"}[number%4]
}

// SchemaOf is the first schema of a client's search path.
func SchemaOf(number int) string {
	return []string{"public", "other"}[number%2]
}

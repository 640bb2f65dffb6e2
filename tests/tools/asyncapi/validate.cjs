// Checks AsyncAPI documents with the specification's own parser: node validate.cjs FILE ...
// Prints each finding of its error level as "FILE path: message"; the exit status is 1 where there is one.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

async function main(files) {
  const parser = new Parser();
  let failed = false;
  for (const file of files) {
    const { document, diagnostics } = await parser.parse(readFileSync(file, "utf-8"), { source: file });
    const errors = diagnostics.filter((found) => found.severity === 0);
    for (const found of errors) console.log(`${file} ${found.path.join(".")}: ${found.message}`);
    if (!errors.length && !document) console.log(`${file}: could not be parsed`);
    failed ||= errors.length > 0 || !document;
    if (!failed) console.log(`${file}: ${document.allMessages().length} messages`);
  }
  process.exitCode = failed ? 1 : 0;
}

main(process.argv.slice(2));

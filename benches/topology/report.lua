-- wrk at its end: one line for a program to read.
function done(summary, latency, requests)
  local wrong = summary.errors
  io.write(string.format(
    'JSON {"requests":%d,"us":%d,"errors":%d}\n', summary.requests, summary.duration,
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout))
end

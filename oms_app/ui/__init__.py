"""The page. It uses requests and results and never imports torch: it receives the studio as an argument."""

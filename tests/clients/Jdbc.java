import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.StringJoiner;

/** Asks a database for customers in every way a driver has, a line for each answer: `java Jdbc.java URL`. */
public class Jdbc {
    static final String PREPARED = "SELECT id, name, card, digits, born FROM customers WHERE id <= ? ORDER BY id";

    public static void main(String[] arguments) throws SQLException {
        try (Connection connection = DriverManager.getConnection(arguments[0])) {
            try (PreparedStatement prepared = connection.prepareStatement(PREPARED)) {
                for (int time = 0; time < 9; time++) {
                    prepared.setInt(1, 2);
                    say("prepared", prepared.executeQuery());
                }
            }
            connection.setAutoCommit(false);
            try (PreparedStatement fetching = connection.prepareStatement(PREPARED)) {
                for (int time = 0; time < 7; time++) {
                    fetching.setFetchSize(2);
                    fetching.setInt(1, 5);
                    say("fetched", fetching.executeQuery());
                }
            }
            try (Statement statement = connection.createStatement()) {
                statement.execute("SELECT name FROM customers WHERE id = 1; SELECT card FROM customers WHERE id = 1");
                say("several", statement.getResultSet());
                statement.getMoreResults();
                say("several", statement.getResultSet());
                refused(statement);
                say("after", statement.executeQuery("SELECT count(*) FROM customers"));
            }
            connection.commit();
        } catch (SQLException error) {
            System.out.println("refused " + error.getSQLState() + " " + error.getMessage().lines().findFirst().get());
        }
    }

    static void refused(Statement statement) {
        try {
            statement.executeUpdate("DELETE FROM customers");
            System.out.println("deleted");
        } catch (SQLException error) {
            System.out.println("refused " + error.getSQLState());
        }
    }

    static void say(String what, ResultSet result) throws SQLException {
        StringJoiner line = new StringJoiner(" ", what + " ", "");
        while (result.next()) {
            StringJoiner cells = new StringJoiner("|");
            for (int cell = 1; cell <= result.getMetaData().getColumnCount(); cell++) {
                cells.add(String.valueOf(result.getObject(cell)));
            }
            line.add(cells.toString());
        }
        System.out.println(line);
    }
}
